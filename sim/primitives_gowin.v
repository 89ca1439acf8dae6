// Two designs that bring this file each may be compiled into one.
`ifndef STA_HW_PRIMITIVES_GOWIN
`define STA_HW_PRIMITIVES_GOWIN

// Behaviour of Gowin's MULT9X9 and MULT18X18 (GW1N, GW2A) with input and output registers that are reset with the clock.
// For simulation only; the settings that the generator does not use are refused.
module MULT9X9 #(
    parameter AREG = 1'b0, parameter BREG = 1'b0, parameter OUT_REG = 1'b0, parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0, parameter BSIGN_REG = 1'b0, parameter SOA_REG = 1'b0,
    parameter MULT_RESET_MODE = "SYNC"
) (
    input [8:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output reg [17:0] DOUT, output [8:0] SOA, SOB
);
`ifndef YOSYS // which reads no $fatal
    initial if (!AREG || !BREG || !OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG
                || MULT_RESET_MODE != "SYNC") begin
        $display("MULT9X9: this model has input and output registers and no others, which a clock resets");
        $fatal;
    end
`endif
    // Signs are not registered, operands are.
    reg [8:0] a, b;
    wire signed [9:0] wide_a = {ASIGN & a[8], a}, wide_b = {BSIGN & b[8], b};
    wire signed [19:0] product = wide_a * wide_b;
    always @(posedge CLK) begin
        if (RESET) begin
            a <= 0;
            b <= 0;
            DOUT <= 0;
        end else if (CE) begin
            a <= ASEL ? SIA : A;
            b <= BSEL ? SIB : B;
            DOUT <= product[17:0];
        end
    end
    assign SOA = a;
    assign SOB = b;
endmodule

module MULT18X18 #(
    parameter AREG = 1'b0, parameter BREG = 1'b0, parameter OUT_REG = 1'b0, parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0, parameter BSIGN_REG = 1'b0, parameter SOA_REG = 1'b0,
    parameter MULT_RESET_MODE = "SYNC"
) (
    input [17:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output reg [35:0] DOUT, output [17:0] SOA, SOB
);
`ifndef YOSYS // which reads no $fatal
    initial if (!AREG || !BREG || !OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG
                || MULT_RESET_MODE != "SYNC") begin
        $display("MULT18X18: this model has input and output registers and no others, which a clock resets");
        $fatal;
    end
`endif
    reg [17:0] a, b;
    wire signed [18:0] wide_a = {ASIGN & a[17], a}, wide_b = {BSIGN & b[17], b};
    wire signed [37:0] product = wide_a * wide_b;
    always @(posedge CLK) begin
        if (RESET) begin
            a <= 0;
            b <= 0;
            DOUT <= 0;
        end else if (CE) begin
            a <= ASEL ? SIA : A;
            b <= BSEL ? SIB : B;
            DOUT <= product[35:0];
        end
    end
    assign SOA = a;
    assign SOB = b;
endmodule

`endif
