// A board with the engine alone, in simulation; the host has the serial line.
module board (
    input clk, input rst, input rx, output tx, output ready, output busy, output failed, output [31:0] violations
);
    board_core core (.clk(clk), .rst(rst), .rx(rx), .tx(tx), .ready(ready), .busy(busy), .failed(failed));
    assign violations = 0;
endmodule
