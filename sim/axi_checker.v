// Checks that both sides of an AXI4 port keep to the protocol (ARM IHI 0022H, the sections named below), for the
// bursts that STA-HW makes: INCR, whole beats of the bus, one thread. Every violation is printed; `violations` counts.
module axi_checker #(
    parameter ADDRESS_WIDTH = 32,
    parameter DATA_BYTES = 4,
    parameter ID_WIDTH = 1,
    parameter MOST_OUTSTANDING = 256
) (
    input wire aclk,
    input wire aresetn,
    input wire [ID_WIDTH-1:0] awid,
    input wire [ADDRESS_WIDTH-1:0] awaddr,
    input wire [7:0] awlen,
    input wire [2:0] awsize,
    input wire [1:0] awburst,
    input wire awlock,
    input wire [3:0] awcache,
    input wire [2:0] awprot,
    input wire [3:0] awqos,
    input wire awvalid,
    input wire awready,
    input wire [8*DATA_BYTES-1:0] wdata,
    input wire [DATA_BYTES-1:0] wstrb,
    input wire wlast,
    input wire wvalid,
    input wire wready,
    input wire [ID_WIDTH-1:0] bid,
    input wire [1:0] bresp,
    input wire bvalid,
    input wire bready,
    input wire [ID_WIDTH-1:0] arid,
    input wire [ADDRESS_WIDTH-1:0] araddr,
    input wire [7:0] arlen,
    input wire [2:0] arsize,
    input wire [1:0] arburst,
    input wire arlock,
    input wire [3:0] arcache,
    input wire [2:0] arprot,
    input wire [3:0] arqos,
    input wire arvalid,
    input wire arready,
    input wire [ID_WIDTH-1:0] rid,
    input wire [8*DATA_BYTES-1:0] rdata,
    input wire [1:0] rresp,
    input wire rlast,
    input wire rvalid,
    input wire rready,
    output reg [31:0] violations,
    output reg [31:0] reads,
    output reg [31:0] writes
);
    localparam AX = ID_WIDTH + ADDRESS_WIDTH + 8 + 3 + 2 + 1 + 4 + 3 + 4;
    wire [AX-1:0] aw = {awid, awaddr, awlen, awsize, awburst, awlock, awcache, awprot, awqos};
    wire [AX-1:0] ar = {arid, araddr, arlen, arsize, arburst, arlock, arcache, arprot, arqos};
    wire [9*DATA_BYTES:0] w = {wlast, wstrb, wdata};
    wire [ID_WIDTH+1:0] b = {bid, bresp};
    wire [ID_WIDTH+8*DATA_BYTES+2:0] r = {rid, rdata, rresp, rlast};

    // What each channel offered in the cycle before, and was not taken: it must be offered still (A3.2.1).
    reg [AX-1:0] aw_before, ar_before;
    reg [9*DATA_BYTES:0] w_before;
    reg [ID_WIDTH+1:0] b_before;
    reg [ID_WIDTH+8*DATA_BYTES+2:0] r_before;
    reg aw_waits, ar_waits, w_waits, b_waits, r_waits, was_reset;

    // Lengths of bursts under way, in order: there is one thread.
    reg [7:0] read_length[0:MOST_OUTSTANDING-1];
    reg [7:0] write_length[0:MOST_OUTSTANDING-1];
    reg [7:0] data_length[0:MOST_OUTSTANDING-1];
    integer read_first, read_count, read_beat;
    // Data may come ahead of its address (A3.3): a burst is whole when both are there, and then its answer is due.
    integer write_first, write_count, write_beat, data_first, data_count, answers_due;

    task violation(input [8*60-1:0] what);
        begin
            $display("AXI violation at %0t: %0s", $time, what);
            violations = violations + 1;
        end
    endtask

    task address(input [ADDRESS_WIDTH-1:0] start, input [7:0] length, input [2:0] size, input [1:0] burst);
        begin
            if (burst != 2'b01) violation("a burst is not INCR");
            if ((1 << size) != DATA_BYTES) violation("a beat is not as wide as the bus");
            if (start % DATA_BYTES != 0) violation("an address is not aligned to the bus");
            // A3.4.1: no burst crosses a boundary of 4,096 bytes.
            if (start[11:0] + (length + 1) * DATA_BYTES > 4096) violation("a burst crosses 4 KiB");
        end
    endtask

    always @(posedge aclk) begin
        was_reset <= !aresetn;
        {aw_waits, ar_waits, w_waits, b_waits, r_waits} <= 0;
        if (!aresetn) begin
            violations = 0;
            {reads, writes} <= 0;
            read_first = 0; read_count = 0; read_beat = 0;
            write_first = 0; write_count = 0; write_beat = 0;
            data_first = 0; data_count = 0; answers_due = 0;
        end else begin
            // A3.1.2: the first edge after reset finds no VALID.
            if (was_reset && (awvalid || wvalid || arvalid)) violation("VALID right behind the reset");
            if (aw_waits && (!awvalid || aw != aw_before)) violation("AW changed before it was taken");
            if (ar_waits && (!arvalid || ar != ar_before)) violation("AR changed before it was taken");
            if (w_waits && (!wvalid || w != w_before)) violation("W changed before it was taken");
            if (b_waits && (!bvalid || b != b_before)) violation("B changed before it was taken");
            if (r_waits && (!rvalid || r != r_before)) violation("R changed before it was taken");
            aw_waits <= awvalid && !awready; aw_before <= aw;
            ar_waits <= arvalid && !arready; ar_before <= ar;
            w_waits <= wvalid && !wready; w_before <= w;
            b_waits <= bvalid && !bready; b_before <= b;
            r_waits <= rvalid && !rready; r_before <= r;

            if (rvalid && rready) begin
                if (read_count == 0) violation("R without a read under way");
                else begin
                    if (rlast != (read_beat == read_length[read_first])) violation("RLAST at the wrong beat");
                    read_beat = read_beat + 1;
                    if (rlast) begin
                        read_beat = 0;
                        read_first = (read_first + 1) % MOST_OUTSTANDING;
                        read_count = read_count - 1;
                    end
                end
            end
            if (arvalid && arready) begin
                address(araddr, arlen, arsize, arburst);
                if (read_count == MOST_OUTSTANDING) violation("too many reads under way");
                else begin
                    read_length[(read_first + read_count) % MOST_OUTSTANDING] = arlen;
                    read_count = read_count + 1;
                end
                reads <= reads + 1;
            end
            if (bvalid && bready) begin
                // A3.3.1: the answer comes after the last beat of its data, and after its address.
                if (answers_due == 0) violation("B ahead of its burst");
                else answers_due = answers_due - 1;
            end
            if (awvalid && awready) begin
                address(awaddr, awlen, awsize, awburst);
                if (write_count + answers_due == MOST_OUTSTANDING) violation("too many writes under way");
                else begin
                    write_length[(write_first + write_count) % MOST_OUTSTANDING] = awlen;
                    write_count = write_count + 1;
                end
                writes <= writes + 1;
            end
            if (wvalid && wready) begin
                if (wlast) begin
                    data_length[(data_first + data_count) % MOST_OUTSTANDING] = write_beat;
                    data_count = data_count + 1;
                    write_beat = 0;
                end else if (write_beat == 255) violation("a burst of data without its end");
                else write_beat = write_beat + 1;
            end
            if (write_count != 0 && data_count != 0) begin
                if (write_length[write_first] != data_length[data_first]) violation("WLAST at the wrong beat");
                write_first = (write_first + 1) % MOST_OUTSTANDING;
                write_count = write_count - 1;
                data_first = (data_first + 1) % MOST_OUTSTANDING;
                data_count = data_count - 1;
                answers_due = answers_due + 1;
            end
        end
    end
endmodule
