// ECP5 cells at the pins, as a board's top level uses them.
module IB (input I, output O);
    assign O = I;
endmodule
module OB (input I, output O);
    assign O = I;
endmodule
module OBZ (input I, input T, output O);
    assign O = T ? 1'bz : I;
endmodule
module ODDRX1F (input SCLK, RST, D0, D1, output Q);
    assign Q = SCLK ? D0 : D1;
endmodule
