// An ECP5's PLL.
// The second output lags by its coarse phase, a multiple of a quarter period. The input is two of its periods for one of
// the outputs', whatever the dividers: what they make of the board's oscillator is checked where they are chosen.
module EHXPLLL #(
    parameter ICP_CURRENT = "", LPF_RESISTOR = "", MFG_ENABLE_FILTEROPAMP = "", MFG_GMCREF_SEL = "",
    parameter PLLRST_ENA = "", INTFB_WAKE = "", STDBY_ENABLE = "", DPHASE_SOURCE = "", OUTDIVIDER_MUXA = "",
    parameter OUTDIVIDER_MUXB = "", FEEDBK_PATH = "", CLKOP_ENABLE = "", CLKOS_ENABLE = "",
    parameter integer CLKI_DIV = 1, CLKFB_DIV = 1, CLKOP_DIV = 4, CLKOP_CPHASE = 0, CLKOP_FPHASE = 0, CLKOS_DIV = 4,
    parameter integer CLKOS_CPHASE = 0, CLKOS_FPHASE = 0
) (
    input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC, ENCLKOP,
    output CLKOP, CLKOS, output LOCK
);
    localparam integer LAG = 4 * (CLKOS_CPHASE - CLKOP_CPHASE) / CLKOP_DIV;
    reg [7:0] quarter = 0;
    reg [7:0] lagging = 0;
    reg [5:0] started = 0;
    always @(CLKI) begin
        quarter <= quarter + 1;
        lagging <= quarter + 1 - LAG;
        if (!LOCK) started <= started + 1;
    end
    assign CLKOP = quarter[1];
    assign CLKOS = lagging[1];
    assign LOCK = &started;
endmodule
