// Checks that both sides of an AXI4 port keep to the protocol (ARM IHI 0022H, the sections named below) and to what
// docs/axi.md says of STA-HW's bursts: INCR, whole beats of the bus, one thread, within boundaries and a window of
// addresses. Every violation is printed, once; `violations` counts them since the simulation began, whatever is reset.
// In a four-state simulation signals that are not known are violations, too. axi_lite_checker is below.
module axi_checker #(
    parameter ADDRESS_WIDTH = 32,
    parameter DATA_BYTES = 4,
    parameter ID_WIDTH = 1,
    parameter BOUNDARY = 4096,       // bytes, a power of two up to 4096: no burst crosses a multiple of it
    parameter MOST_READS = 256,      // bursts under way: requests taken and not answered to the end
    parameter MOST_WRITES = 256,
    parameter [63:0] WINDOW_BASE = 0,
    parameter [64:0] WINDOW_BYTES = 65'h1_0000_0000_0000_0000
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
    output reg [31:0] writes,
    output reg [31:0] most_reads,    // the highest number under way
    output reg [31:0] most_writes
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

    // Lengths and identifiers of bursts under way, in order: there is one thread.
    reg [7:0] read_length[0:MOST_READS-1];
    reg [ID_WIDTH-1:0] read_id[0:MOST_READS-1];
    reg [7:0] write_length[0:MOST_WRITES-1];
    reg [ID_WIDTH-1:0] write_id[0:MOST_WRITES-1];
    reg [7:0] data_length[0:MOST_WRITES-1];
    integer read_first, read_count, read_beat;
    // Data may come ahead of its address (A3.3): a burst is whole when both are there, and then its answer is due. Of
    // the addresses from `write_first` on, `answers_due` belong to whole bursts, and `write_count` wait for data.
    integer write_first, write_count, write_beat, data_first, data_count, answers_due;

    task violation(input [8*60-1:0] what);
        begin
            $display("AXI violation at %0t: %0s", $time, what);
            violations = violations + 1;
        end
    endtask

    task address(
        input [ADDRESS_WIDTH-1:0] start, input [7:0] length, input [2:0] size, input [1:0] burst, input lock
    );
        begin
            if (burst != 2'b01) violation("a burst is not INCR");
            if ((1 << size) != DATA_BYTES) violation("a beat is not as wide as the bus");
            if (start % DATA_BYTES != 0) violation("an address is not aligned to the bus");
            if (lock) violation("an access is exclusive");
            // A3.4.1: no burst crosses a boundary of 4,096 bytes; STA-HW's are narrower.
            if (start % BOUNDARY + (length + 1) * DATA_BYTES > BOUNDARY) violation("a burst crosses its boundary");
            if (start < WINDOW_BASE || {1'b0, start} + (length + 1) * DATA_BYTES > WINDOW_BASE + WINDOW_BYTES)
                violation("a burst is outside the window");
        end
    endtask

    initial begin
        {violations, reads, writes, most_reads, most_writes} = 0;
        was_reset = 0;
        {aw_waits, ar_waits, w_waits, b_waits, r_waits} = 0;
        read_first = 0; read_count = 0; read_beat = 0;
        write_first = 0; write_count = 0; write_beat = 0;
        data_first = 0; data_count = 0; answers_due = 0;
    end

    always @(posedge aclk) begin
        was_reset <= !aresetn;
        {aw_waits, ar_waits, w_waits, b_waits, r_waits} <= 0;
        if (aresetn !== 1'b0 && aresetn !== 1'b1) violation("ARESETN is not known");
        // A3.1.2: VALID is low in reset, and at the first edge behind it. Its first edge is the one that acts.
        if (was_reset) begin
            if (awvalid !== 1'b0) violation("AWVALID in or right behind the reset");
            if (wvalid !== 1'b0) violation("WVALID in or right behind the reset");
            if (arvalid !== 1'b0) violation("ARVALID in or right behind the reset");
            if (bvalid !== 1'b0) violation("BVALID in or right behind the reset");
            if (rvalid !== 1'b0) violation("RVALID in or right behind the reset");
        end
        if (!aresetn) begin
            read_first = 0; read_count = 0; read_beat = 0;
            write_first = 0; write_count = 0; write_beat = 0;
            data_first = 0; data_count = 0; answers_due = 0;
        end else begin
            if (!was_reset) begin
                if (^{awvalid, wvalid, arvalid, bvalid, rvalid} === 1'bx) violation("a VALID is not known");
                // Answers ahead of what they answer, from the moment they are offered (A3.3.1): B comes behind the last
                // beat of its data, and behind its address.
                if (rvalid && !r_waits && read_count == 0) violation("R without a read under way");
                if (bvalid && !b_waits && answers_due == 0) violation("B ahead of its burst");
            end
            if (^{awready, wready, arready, bready, rready} === 1'bx) violation("a READY is not known");
            if (awvalid && ^aw === 1'bx) violation("AW is not known");
            if (arvalid && ^ar === 1'bx) violation("AR is not known");
            if (wvalid && ^{wlast, wstrb} === 1'bx) violation("WLAST or WSTRB is not known");
            if (bvalid && ^b === 1'bx) violation("B is not known");
            if (rvalid && ^{rid, rresp, rlast} === 1'bx) violation("RID, RRESP or RLAST is not known");
            if (aw_waits && (awvalid === 1'b0 || aw !== aw_before)) violation("AW changed before it was taken");
            if (ar_waits && (arvalid === 1'b0 || ar !== ar_before)) violation("AR changed before it was taken");
            if (w_waits && (wvalid === 1'b0 || w !== w_before)) violation("W changed before it was taken");
            if (b_waits && (bvalid === 1'b0 || b !== b_before)) violation("B changed before it was taken");
            if (r_waits && (rvalid === 1'b0 || r !== r_before)) violation("R changed before it was taken");
            aw_waits <= awvalid && !awready; aw_before <= aw;
            ar_waits <= arvalid && !arready; ar_before <= ar;
            w_waits <= wvalid && !wready; w_before <= w;
            b_waits <= bvalid && !bready; b_before <= b;
            r_waits <= rvalid && !rready; r_before <= r;
            // STA-HW's own: a burst of data that began goes on in every cycle.
            if (write_beat != 0 && wvalid === 1'b0 && !w_waits) violation("a gap in a burst of data");

            if (rvalid && rready && read_count != 0) begin
                if (rlast != (read_beat == read_length[read_first])) violation("RLAST at the wrong beat");
                if (rid != read_id[read_first]) violation("RID is not its request's");
                if (rresp == 2'b01) violation("EXOKAY of an access that is not exclusive");
                if (read_beat == read_length[read_first]) begin
                    read_beat = 0;
                    read_first = (read_first + 1) % MOST_READS;
                    read_count = read_count - 1;
                end else read_beat = read_beat + 1;
            end
            if (arvalid && arready) begin
                address(araddr, arlen, arsize, arburst, arlock);
                if (read_count == MOST_READS) violation("too many reads under way");
                else begin
                    read_length[(read_first + read_count) % MOST_READS] = arlen;
                    read_id[(read_first + read_count) % MOST_READS] = arid;
                    read_count = read_count + 1;
                end
                if (read_count > most_reads) most_reads <= read_count;
                reads <= reads + 1;
            end
            if (bvalid && bready && answers_due != 0) begin
                if (bid != write_id[write_first]) violation("BID is not its request's");
                if (bresp == 2'b01) violation("EXOKAY of an access that is not exclusive");
                write_first = (write_first + 1) % MOST_WRITES;
                answers_due = answers_due - 1;
            end
            if (awvalid && awready) begin
                address(awaddr, awlen, awsize, awburst, awlock);
                if (answers_due + write_count == MOST_WRITES) violation("too many writes under way");
                else begin
                    write_length[(write_first + answers_due + write_count) % MOST_WRITES] = awlen;
                    write_id[(write_first + answers_due + write_count) % MOST_WRITES] = awid;
                    write_count = write_count + 1;
                end
                if (answers_due + write_count > most_writes) most_writes <= answers_due + write_count;
                writes <= writes + 1;
            end
            if (wvalid && wready) begin
                if (wlast) begin
                    if (data_count == MOST_WRITES) violation("too many bursts of data without an address");
                    else begin
                        data_length[(data_first + data_count) % MOST_WRITES] = write_beat;
                        data_count = data_count + 1;
                    end
                    write_beat = 0;
                end else if (write_beat == 255) violation("a burst of data without its end");
                else write_beat = write_beat + 1;
            end
            if (write_count != 0 && data_count != 0) begin
                if (write_length[(write_first + answers_due) % MOST_WRITES] != data_length[data_first])
                    violation("WLAST at the wrong beat");
                write_count = write_count - 1;
                data_first = (data_first + 1) % MOST_WRITES;
                data_count = data_count - 1;
                answers_due = answers_due + 1;
            end
        end
    end
endmodule

// The same for an AXI4-Lite port (B1): no bursts, so a request, its data and its answer are a transfer each.
module axi_lite_checker #(
    parameter ADDRESS_WIDTH = 12,
    parameter MOST_READS = 1,
    parameter MOST_WRITES = 1
) (
    input wire aclk,
    input wire aresetn,
    input wire [ADDRESS_WIDTH-1:0] awaddr,
    input wire [2:0] awprot,
    input wire awvalid,
    input wire awready,
    input wire [31:0] wdata,
    input wire [3:0] wstrb,
    input wire wvalid,
    input wire wready,
    input wire [1:0] bresp,
    input wire bvalid,
    input wire bready,
    input wire [ADDRESS_WIDTH-1:0] araddr,
    input wire [2:0] arprot,
    input wire arvalid,
    input wire arready,
    input wire [31:0] rdata,
    input wire [1:0] rresp,
    input wire rvalid,
    input wire rready,
    output reg [31:0] violations,
    output reg [31:0] reads,
    output reg [31:0] writes
);
    wire [ADDRESS_WIDTH+2:0] aw = {awaddr, awprot};
    wire [ADDRESS_WIDTH+2:0] ar = {araddr, arprot};
    wire [35:0] w = {wstrb, wdata};
    wire [33:0] r = {rresp, rdata};
    reg [ADDRESS_WIDTH+2:0] aw_before, ar_before;
    reg [35:0] w_before;
    reg [33:0] r_before;
    reg [1:0] b_before;
    reg aw_waits, ar_waits, w_waits, b_waits, r_waits, was_reset;
    integer read_count, address_count, data_count; // taken and not answered

    task violation(input [8*60-1:0] what);
        begin
            $display("AXI-Lite violation at %0t: %0s", $time, what);
            violations = violations + 1;
        end
    endtask

    initial begin
        {violations, reads, writes} = 0;
        was_reset = 0;
        {aw_waits, ar_waits, w_waits, b_waits, r_waits} = 0;
        read_count = 0; address_count = 0; data_count = 0;
    end

    always @(posedge aclk) begin
        was_reset <= !aresetn;
        {aw_waits, ar_waits, w_waits, b_waits, r_waits} <= 0;
        if (aresetn !== 1'b0 && aresetn !== 1'b1) violation("ARESETN is not known");
        if (was_reset) begin
            if (awvalid !== 1'b0) violation("AWVALID in or right behind the reset");
            if (wvalid !== 1'b0) violation("WVALID in or right behind the reset");
            if (arvalid !== 1'b0) violation("ARVALID in or right behind the reset");
            if (bvalid !== 1'b0) violation("BVALID in or right behind the reset");
            if (rvalid !== 1'b0) violation("RVALID in or right behind the reset");
        end
        if (!aresetn) begin
            read_count = 0; address_count = 0; data_count = 0;
        end else begin
            if (!was_reset) begin
                if (^{awvalid, wvalid, arvalid, bvalid, rvalid} === 1'bx) violation("a VALID is not known");
                if (rvalid && !r_waits && read_count == 0) violation("R without a read under way");
                if (bvalid && !b_waits && (address_count == 0 || data_count == 0)) violation("B ahead of its write");
            end
            if (^{awready, wready, arready, bready, rready} === 1'bx) violation("a READY is not known");
            if (awvalid && ^aw === 1'bx) violation("AW is not known");
            if (arvalid && ^ar === 1'bx) violation("AR is not known");
            if (wvalid && ^wstrb === 1'bx) violation("WSTRB is not known");
            if (bvalid && ^bresp === 1'bx) violation("B is not known");
            if (rvalid && ^r === 1'bx) violation("R is not known");
            if (aw_waits && (awvalid === 1'b0 || aw !== aw_before)) violation("AW changed before it was taken");
            if (ar_waits && (arvalid === 1'b0 || ar !== ar_before)) violation("AR changed before it was taken");
            if (w_waits && (wvalid === 1'b0 || w !== w_before)) violation("W changed before it was taken");
            if (b_waits && (bvalid === 1'b0 || bresp !== b_before)) violation("B changed before it was taken");
            if (r_waits && (rvalid === 1'b0 || r !== r_before)) violation("R changed before it was taken");
            aw_waits <= awvalid && !awready; aw_before <= aw;
            ar_waits <= arvalid && !arready; ar_before <= ar;
            w_waits <= wvalid && !wready; w_before <= w;
            b_waits <= bvalid && !bready; b_before <= bresp;
            r_waits <= rvalid && !rready; r_before <= r;

            // B1.1.1: EXOKAY is none of AXI4-Lite's answers.
            if (rvalid && rready && read_count != 0) begin
                if (rresp == 2'b01) violation("EXOKAY");
                read_count = read_count - 1;
            end
            if (bvalid && bready && address_count != 0 && data_count != 0) begin
                if (bresp == 2'b01) violation("EXOKAY");
                address_count = address_count - 1;
                data_count = data_count - 1;
            end
            if (arvalid && arready) begin
                if (read_count == MOST_READS) violation("too many reads under way");
                else read_count = read_count + 1;
                reads <= reads + 1;
            end
            if (awvalid && awready) begin
                if (address_count == MOST_WRITES) violation("too many writes under way");
                else address_count = address_count + 1;
                writes <= writes + 1;
            end
            if (wvalid && wready) begin
                if (data_count == MOST_WRITES) violation("too many data under way");
                else data_count = data_count + 1;
            end
        end
    end
endmodule
