// ECP5 input and output cells as LiteDRAM's SDRAM PHY uses them.
module OFS1P3BX (input D, PD, SCLK, SP, output reg Q);
    always @(posedge SCLK) if (PD) Q <= 1; else if (SP) Q <= D;
endmodule
module IFS1P3BX (input D, PD, SCLK, SP, output reg Q);
    always @(posedge SCLK) if (PD) Q <= 1; else if (SP) Q <= D;
endmodule
module FD1S3BX (input CK, D, PD, output reg Q);
    always @(posedge CK or posedge PD) if (PD) Q <= 1; else Q <= D;
endmodule
module TRELLIS_IO #(parameter DIR = "BIDIR") (input I, T, output O, inout B);
    assign B = T ? 1'bz : I;
    assign O = B;
endmodule
