// Two designs that bring this file each may be compiled into one.
`ifndef STA_HW_PRIMITIVES
`define STA_HW_PRIMITIVES

// Behaviour of the ECP5 MULT18X18D with input and output registers (CLK0, CE0, RST0) or none.
// For simulation only; the settings that the generator and Yosys do not use are refused.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE", parameter REG_INPUTA_CE = "CE0", parameter REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE", parameter REG_INPUTB_CE = "CE0", parameter REG_INPUTB_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE", parameter REG_OUTPUT_CE = "CE0", parameter REG_OUTPUT_RST = "RST0",
    parameter REG_PIPELINE_CLK = "NONE", parameter GSR = "ENABLED", parameter RESETMODE = "SYNC"
) (
    input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17,
    input B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE0, RST0,
    output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17,
    output P18, P19, P20, P21, P22, P23, P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35
);
    localparam REGISTERED = REG_OUTPUT_CLK == "CLK0";
`ifndef YOSYS // which reads no $fatal
    initial if ((REG_INPUTA_CLK == "CLK0") != REGISTERED || (REG_INPUTB_CLK == "CLK0") != REGISTERED
                || REG_PIPELINE_CLK != "NONE" || RESETMODE != "SYNC") begin
        $display("MULT18X18D: this model has input and output registers on CLK0, or no registers at all");
        $fatal;
    end
`endif
    wire signed [18:0] a =
        {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire signed [18:0] b =
        {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    reg signed [18:0] a_register, b_register;
    reg signed [37:0] stored;
    always @(posedge CLK0) begin
        if (RST0) begin
            a_register <= 0;
            b_register <= 0;
            stored <= 0;
        end else if (CE0) begin
            a_register <= a;
            b_register <= b;
            stored <= a_register * b_register;
        end
    end
    wire signed [37:0] at_once = a * b;
    wire [35:0] product = REGISTERED ? stored[35:0] : at_once[35:0];
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
            P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = product;
endmodule

// Behaviour of the iCE40 SB_MAC16 as two 8 x 8 multipliers, A unsigned and B signed, with registers before and behind.
// For simulation only; the settings that the generator does not use are refused.
module SB_MAC16 #(
    parameter NEG_TRIGGER = 0, parameter A_REG = 0, parameter B_REG = 0, parameter C_REG = 0, parameter D_REG = 0,
    parameter TOP_8x8_MULT_REG = 0, parameter BOT_8x8_MULT_REG = 0, parameter PIPELINE_16x16_MULT_REG1 = 0,
    parameter PIPELINE_16x16_MULT_REG2 = 0, parameter TOPOUTPUT_SELECT = 0, parameter TOPADDSUB_LOWERINPUT = 0,
    parameter TOPADDSUB_UPPERINPUT = 0, parameter TOPADDSUB_CARRYSELECT = 0, parameter BOTOUTPUT_SELECT = 0,
    parameter BOTADDSUB_LOWERINPUT = 0, parameter BOTADDSUB_UPPERINPUT = 0, parameter BOTADDSUB_CARRYSELECT = 0,
    parameter MODE_8x8 = 0, parameter A_SIGNED = 0, parameter B_SIGNED = 0
) (
    input CLK, CE, input [15:0] C, A, B, D, input AHOLD, BHOLD, CHOLD, DHOLD, IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT,
    input OLOADTOP, OLOADBOT, ADDSUBTOP, ADDSUBBOT, OHOLDTOP, OHOLDBOT, CI, ACCUMCI, SIGNEXTIN,
    output [31:0] O, output CO, ACCUMCO, SIGNEXTOUT
);
`ifndef YOSYS // which reads no $fatal
    initial if (!A_REG || !B_REG || !TOP_8x8_MULT_REG || !BOT_8x8_MULT_REG || TOPOUTPUT_SELECT != 2
                || BOTOUTPUT_SELECT != 2 || !MODE_8x8 || A_SIGNED || !B_SIGNED || NEG_TRIGGER) begin
        $display("SB_MAC16: this model is two registered 8 x 8 multipliers, A unsigned and B signed");
        $fatal;
    end
`endif
    reg [15:0] a, b, top, bottom;
    always @(posedge CLK) if (CE) begin
        a <= A;
        b <= B;
        top <= {8'b0, a[15:8]} * {{8{b[15]}}, b[15:8]};
        bottom <= {8'b0, a[7:0]} * {{8{b[7]}}, b[7:0]};
    end
    assign O = {top, bottom};
    assign {CO, ACCUMCO, SIGNEXTOUT} = 3'b0;
endmodule

`endif
