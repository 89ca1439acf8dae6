// Two designs that bring this file each may be compiled into one.
`ifndef STA_HW_PRIMITIVES_NEXUS
`define STA_HW_PRIMITIVES_NEXUS

// Behaviour of Lattice Nexus' MULT9X9 and MULT18X18 with input and output registers that are reset with the clock.
// For simulation only; the settings that the generator does not use are refused.
module MULT9X9 #(
    parameter REGINPUTA = "REGISTER", parameter REGINPUTB = "REGISTER", parameter REGOUTPUT = "REGISTER",
    parameter GSR = "ENABLED", parameter RESETMODE = "SYNC"
) (
    input [8:0] A, B, input CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT, output reg [17:0] Z
);
`ifndef YOSYS // which reads no $fatal
    initial if (REGINPUTA != "REGISTER" || REGINPUTB != "REGISTER" || REGOUTPUT != "REGISTER" || GSR != "DISABLED"
                || RESETMODE != "SYNC") begin
        $display("MULT9X9: this model has input and output registers, which a clock resets and GSR does not");
        $fatal;
    end
`endif
    // The sign bits are kept with the operands: one multiplication serves signed and unsigned ones.
    reg signed [9:0] a, b;
    wire signed [19:0] product = a * b;
    always @(posedge CLK) begin
        if (RSTA) a <= 0;
        else if (CEA) a <= {SIGNEDA & A[8], A};
        if (RSTB) b <= 0;
        else if (CEB) b <= {SIGNEDB & B[8], B};
        if (RSTOUT) Z <= 0;
        else if (CEOUT) Z <= product[17:0];
    end
endmodule

module MULT18X18 #(
    parameter REGINPUTA = "REGISTER", parameter REGINPUTB = "REGISTER", parameter REGOUTPUT = "REGISTER",
    parameter GSR = "ENABLED", parameter RESETMODE = "SYNC"
) (
    input [17:0] A, B, input CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT, output reg [35:0] Z
);
`ifndef YOSYS // which reads no $fatal
    initial if (REGINPUTA != "REGISTER" || REGINPUTB != "REGISTER" || REGOUTPUT != "REGISTER" || GSR != "DISABLED"
                || RESETMODE != "SYNC") begin
        $display("MULT18X18: this model has input and output registers, which a clock resets and GSR does not");
        $fatal;
    end
`endif
    reg signed [18:0] a, b;
    wire signed [37:0] product = a * b;
    always @(posedge CLK) begin
        if (RSTA) a <= 0;
        else if (CEA) a <= {SIGNEDA & A[17], A};
        if (RSTB) b <= 0;
        else if (CEB) b <= {SIGNEDB & B[17], B};
        if (RSTOUT) Z <= 0;
        else if (CEOUT) Z <= product[35:0];
    end
endmodule

`endif
