// A 16-bit SDR SDRAM of 4 banks, 2**13 rows and 2**9 columns (MT48LC16M16): burst length 1, CAS latency 2.
// Commands are taken at the falling edge of the controller's clock, as a board's shifted clock does.
// `violations` counts commands that the chip's data sheet forbids: to a bank that is closed (or open), before the
// mode register was written, sooner than tRCD, tRP, tRC or tRFC (2, 2, 5 and 5 cycles: 80 MHz).
module sdram (
    input clk, input cke, input cs_n, input ras_n, input cas_n, input we_n, input [1:0] ba, input [12:0] a,
    input [1:0] dm, inout [15:0] dq, output reg [31:0] violations
);
    reg [15:0] words [0:(1 << 24) - 1];
    reg [12:0] row [0:3];
    reg [3:0] is_open;
    reg ready;
    reg [15:0] read_0, read_1;
    reg drive_0, drive_1;
    reg [7:0] since_active [0:3];
    reg [7:0] since_precharge [0:3];
    reg [7:0] since_refresh;
    reg [3:0] precharge_at_end;
    integer i;
    initial begin
        violations = 0;
        is_open = 0;
        ready = 0;
        drive_0 = 0;
        drive_1 = 0;
        since_refresh = 255;
        precharge_at_end = 0;
        for (i = 0; i < 4; i = i + 1) begin
            since_active[i] = 255;
            since_precharge[i] = 255;
        end
    end
    assign dq = drive_0 ? read_0 : 16'bz;
    wire [23:0] address = {row[ba], ba, a[8:0]};
    always @(negedge clk) begin
        // Data appear one edge after READ and stay until the next: taken with CAS latency 2.
        drive_0 <= drive_1;
        read_0 <= read_1;
        drive_1 <= 0;
        for (i = 0; i < 4; i = i + 1) begin
            if (since_active[i] != 255) since_active[i] <= since_active[i] + 1;
            if (since_precharge[i] != 255) since_precharge[i] <= since_precharge[i] + 1;
        end
        if (since_refresh != 255) since_refresh <= since_refresh + 1;
        for (i = 0; i < 4; i = i + 1) if (precharge_at_end[i]) begin
            precharge_at_end[i] <= 0;
            is_open[i] <= 0;
            since_precharge[i] <= 0;
        end
        if (cke && !cs_n) case ({ras_n, cas_n, we_n})
            3'b000: begin
                ready <= 1;
                if (is_open != 0) violations <= violations + 1;
            end
            3'b001: begin
                if (is_open != 0 || since_refresh < 5) violations <= violations + 1;
                since_refresh <= 0;
            end
            3'b010: if (a[10]) begin
                is_open <= 0;
                for (i = 0; i < 4; i = i + 1) since_precharge[i] <= 0;
            end else begin
                is_open[ba] <= 0;
                since_precharge[ba] <= 0;
            end
            3'b011: begin
                if (is_open[ba] || !ready || since_precharge[ba] < 1 || since_active[ba] < 4 || since_refresh < 4)
                    violations <= violations + 1;
                is_open[ba] <= 1;
                row[ba] <= a;
                since_active[ba] <= 0;
            end
            3'b100, 3'b101: begin
                if (!is_open[ba] || since_active[ba] < 1) violations <= violations + 1;
                if (we_n) begin
                    read_1 <= words[address];
                    drive_1 <= 1;
                end else begin
                    if (!dm[0]) words[address][7:0] <= dq[7:0];
                    if (!dm[1]) words[address][15:8] <= dq[15:8];
                end
                if (a[10]) precharge_at_end[ba] <= 1;
            end
            default: ;
        endcase
    end
endmodule
