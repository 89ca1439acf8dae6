// iCE40 cells at the pins and the oscillator, as a board's top level uses them.
module SB_IO #(
    parameter [5:0] PIN_TYPE = 0, parameter PULLUP = 0, NEG_TRIGGER = 0, IO_STANDARD = ""
) (
    inout PACKAGE_PIN, input LATCH_INPUT_VALUE, CLOCK_ENABLE, INPUT_CLK, OUTPUT_CLK, OUTPUT_ENABLE, D_OUT_0, D_OUT_1,
    output D_IN_0, D_IN_1
);
    assign D_IN_0 = PACKAGE_PIN;
    generate
        if (PIN_TYPE[5:2] == 4'b0110) assign PACKAGE_PIN = D_OUT_0;
        else if (PIN_TYPE[5:2] == 4'b1010) assign PACKAGE_PIN = OUTPUT_ENABLE ? D_OUT_0 : 1'bz;
    endgenerate
endmodule
module SB_HFOSC #(parameter CLKHF_DIV = "") (input CLKHFEN, CLKHFPU, output CLKHF);
    assign CLKHF = board.clk & CLKHFEN & CLKHFPU;
endmodule
