// ECP5 cells as LiteDRAM's DDR3 PHY uses them: clocks, and serial data at the pins. An edge of ECLK is a bit on the pins.
// Bits lie in the quarters of SCLK, told apart by SCLK and ECLK. That the data's clock is a quarter of ECLK's period from
// the strobe's is rounded to a bit. How late the silicon's cells are, and how its queue for reads takes data to SCLK, is
// not published: the latencies here are those that LiteDRAM's own, which boards run with, ask for.

// Outputs: twice the accelerator's clock, and a slow one; the input has an edge for each bit on the pins, whatever the
// dividers: what they make of the board's oscillator is checked where they are chosen.
module EHXPLLL #(
    parameter CLKOP_ENABLE = "", CLKOS_ENABLE = "", CLKOS2_ENABLE = "", FEEDBK_PATH = "",
    parameter integer CLKI_DIV = 1, CLKFB_DIV = 1, CLKOP_DIV = 4, CLKOP_CPHASE = 0, CLKOP_FPHASE = 0, CLKOS_DIV = 4,
    parameter integer CLKOS_CPHASE = 0, CLKOS_FPHASE = 0, CLKOS2_DIV = 1, CLKOS2_CPHASE = 0, CLKOS2_FPHASE = 0
) (input CLKI, RST, STDBY, output CLKOP, CLKOS, CLKOS2, output LOCK);
    reg [3:0] bits = 0;
    reg [5:0] started = 0;
    always @(CLKI) begin
        bits <= bits + 1;
        if (RST) started <= 0; else if (!LOCK) started <= started + 1;
    end
    assign CLKOP = ~bits[0];
    assign CLKOS = ~bits[3];
    assign CLKOS2 = 0;
    assign LOCK = &started;
endmodule
module ECLKBRIDGECS (input CLK0, SEL, output ECSOUT);
    assign ECSOUT = CLK0;
endmodule
module ECLKSYNCB (input ECLKI, STOP, output ECLKO);
    reg stopped = 0;
    always @(negedge ECLKI) stopped <= STOP;
    assign ECLKO = ECLKI & ~stopped;
endmodule
module CLKDIVF #(parameter DIV = "2.0") (input ALIGNWD, CLKI, RST, output CDIVX);
    reg divided = 0;
    always @(posedge CLKI or posedge RST) if (RST) divided <= 0; else divided <= ~divided;
    assign CDIVX = divided;
endmodule
module DDRDLLA (input CLK, RST, UDDCNTLN, FREEZE, output DDRDEL, LOCK);
    reg [5:0] started = 0;
    always @(posedge CLK) if (RST) started <= 0; else if (!LOCK) started <= started + 1;
    assign LOCK = &started;
    assign DDRDEL = 0;
endmodule
module DELAYG #(parameter DEL_MODE = "", parameter integer DEL_VALUE = 0) (input A, output Z);
    assign Z = A;
endmodule
module ODDRX2F (input SCLK, ECLK, RST, D0, D1, D2, D3, output Q);
    reg [3:0] early, bits;
    always @(posedge SCLK) begin
        early <= {D3, D2, D1, D0};
        bits <= early;
    end
    assign Q = bits[{~SCLK, ~ECLK}];
endmodule
module ODDRX2DQSB (input SCLK, ECLK, RST, DQSW, D0, D1, D2, D3, output Q);
    reg [3:0] bits;
    always @(posedge SCLK) bits <= {D3, D2, D1, D0};
    assign Q = bits[{~SCLK, ~ECLK}];
endmodule
module TSHX2DQSA (input SCLK, ECLK, RST, DQSW, T0, T1, output Q);
    reg [1:0] halves = 3;
    always @(posedge SCLK) halves <= {T1, T0};
    assign Q = halves[~SCLK];
endmodule
module ODDRX2DQA (input SCLK, ECLK, RST, DQSW270, D0, D1, D2, D3, output Q);
    reg [4:0] bits;
    always @(posedge SCLK) bits <= {D3, D2, D1, D0, bits[4]};
    assign Q = bits[{1'b0, ~SCLK, ~ECLK}];
endmodule
module TSHX2DQA (input SCLK, ECLK, RST, DQSW270, T0, T1, output Q);
    reg [2:0] halves = 7;
    always @(posedge SCLK) halves <= {T1, T0, halves[2]};
    assign Q = SCLK & ECLK ? halves[0] : halves[{~SCLK & ~ECLK, SCLK | ECLK}];
endmodule
// The strobe of reads is let in from READ's time and READCLKSEL on, in quarters of ECLK's period. If that is within the
// low strobe ahead of a burst, the burst is detected; otherwise, all that follows is taken wrongly.
module DQSBUFM #(
    parameter DQS_LI_DEL_ADJ = "", DQS_LO_DEL_ADJ = "", parameter integer DQS_LI_DEL_VAL = 0, DQS_LO_DEL_VAL = 0,
    parameter integer FIRST = 1
) (
    input DQSI, READ0, READ1, READCLKSEL0, READCLKSEL1, READCLKSEL2, DDRDEL, ECLK, SCLK, RST, DYNDELAY,
    input PAUSE, RDLOADN, RDMOVE, RDDIRECTION, WRLOADN, WRMOVE, WRDIRECTION,
    output DQSR90, DQSW, DQSW270, RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2, DATAVALID, output reg BURSTDET
);
    reg reading, opened, seen, waiting, wrong, was_high;
    reg [7:0] ticks;
    reg [1:0] found;
    wire [2:0] chosen = {READCLKSEL2, READCLKSEL1, READCLKSEL0};
    always @(posedge SCLK) begin
        reading <= READ0;
        if (READ0 && !reading) opened <= ~opened;
        BURSTDET <= found != 0;
    end
    reg [2:0] strobe;
    wire first = waiting && strobe[0] && !was_high;
    wire signed [9:0] ahead = 2 * ($signed({2'b0, ticks}) - FIRST) - $signed({7'b0, chosen});
    wire misplaced = ahead < 0 || ahead > 3;
    always @(ECLK) begin
        strobe <= {DQSI, strobe[2:1]};
        was_high <= strobe[0];
        ticks <= ticks == 255 ? 255 : ticks + 1;
        if (opened != seen) begin
            seen <= opened;
            ticks <= 0;
            waiting <= 1;
        end else if (first) begin
            waiting <= 0;
            wrong <= misplaced;
        end
        found <= first && !misplaced ? 3 : found == 0 ? 0 : found - 1;
    end
    assign RDPNTR0 = first ? misplaced : wrong;
    assign {RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2, DATAVALID, DQSR90} = 0;
    assign {DQSW, DQSW270} = {2{ECLK}};
endmodule
module IDDRX2DQA #(parameter integer LATE = 4) (
    input D, DQSR90, ECLK, SCLK, RST, RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2, output Q0, Q1, Q2, Q3
);
    reg [2:0] pin;
    reg [4:0] bits;
    reg [4 * LATE - 1:0] later;
    always @(ECLK) begin
        pin <= {D, pin[2:1]};
        bits <= {pin[0] ^ RDPNTR0, bits[4:1]};
    end
    // The newest bit is the first of the cycle that begins.
    always @(posedge SCLK) later <= {bits[3:0], later[4 * LATE - 1:4]};
    assign {Q3, Q2, Q1, Q0} = later[3:0];
endmodule
