// A 16-bit DDR3 SDRAM of 8 banks, 2**15 rows and 2**10 columns (MT41K256M16): bursts of 8, no additive latency.
// `tick` has an edge, rising or falling, for each bit on a data pin, a quarter of the controller's clock: what the pins
// have there is what they had since the edge before. That data lie a quarter of a period from the edges of their strobe
// is not modeled. What is read comes LAG_0 and LAG_1 bits late, lane by lane, as on a board whose wires have a length.
// `violations` counts what the data sheet forbids: commands before their time, to a bank that is closed (or open), ahead
// of the mode registers and the calibration; latencies other than the mode registers'; write strobes that do not come
// with their data; and refreshes that are missing.
module ddr3 #(parameter integer LAG_0 = 0, LAG_1 = 0) (
    input tick, input ck, input cke, input ras_n, input cas_n, input we_n, input [2:0] ba, input [14:0] a,
    input [1:0] dm, input odt, inout [15:0] dq, inout [1:0] dqs, output reg [31:0] violations
);
    // In periods of 6.67 ns, and data as of the data sheet's -125 speed grade.
    localparam integer RCD = 3, RP = 3, RAS = 6, RC = 8, RRD = 4, FAW = 6, RFC = 39, WR = 3, WTR = 4, RTP = 4, CCD = 4;
    localparam integer MRD = 4, MOD = 12, ZQ = 200, REFRESH = 9 * 1170, LATEST = 63;
    // Only what was written is kept, burst by burst: 512 MB are not at hand everywhere. The rest reads as 0.
    reg [127:0] words [bit [24:0]] /* verilator public_flat_rw */;
    reg [14:0] row [0:7];
    reg [7:0] is_open, closing;
    integer now, active[0:7], precharge[0:7], read_at[0:7], write_end[0:7], closes[0:7];
    integer any_active[0:3], any_read, any_write_end, any_refresh, any_mode, calibrated, i;
    reg [3:0] modes;
    integer cl, cwl;
    reg last_ck;
    // Bursts to come: a bit for each tick from now, and the addresses in their order.
    reg [LATEST:0] reads, writes;
    reg [24:0] read_queue [0:7], write_queue [0:7];
    reg [2:0] read_in, read_out, write_in, write_out;
    reg [3:0] reading, writing;
    reg [127:0] read_data, write_data;
    reg [15:0] write_mask;
    // What the pins give, oldest last, of which each lane takes its own.
    reg [15:0] out [0:7];
    reg out_strobe [0:7], out_on [0:7];
    reg [15:0] now_out;
    reg now_strobe, now_on;
    initial begin
        violations = 0; is_open = 0; closing = 0; now = 0; modes = 0; cl = 0; cwl = 0; last_ck = 0; reads = 0; writes = 0;
        read_in = 0; read_out = 0; write_in = 0; write_out = 0; reading = 0; writing = 0;
        any_read = -1000; any_write_end = -1000; any_refresh = -1000; any_mode = -1000; calibrated = -1;
        for (i = 0; i < 8; i = i + 1) begin
            active[i] = -1000; precharge[i] = -1000; read_at[i] = -1000; write_end[i] = -1000; closes[i] = 0;
            out[i] = 0; out_strobe[i] = 0; out_on[i] = 0;
        end
        for (i = 0; i < 4; i = i + 1) any_active[i] = -1000;
    end
    assign dq[7:0] = out_on[LAG_0] ? out[LAG_0][7:0] : 8'bz;
    assign dq[15:8] = out_on[LAG_1] ? out[LAG_1][15:8] : 8'bz;
    assign dqs[0] = out_on[LAG_0] ? out_strobe[LAG_0] : 1'bz;
    assign dqs[1] = out_on[LAG_1] ? out_strobe[LAG_1] : 1'bz;
    wire [24:0] address = {row[ba], ba, a[9:3]};
    always @(tick) begin
        // A write's bits, the first when its latency is over; the strobe is high for the even ones.
        if (writes[0]) begin
            writing = 8;
            write_mask = 16'hffff;
        end
        if (writing != 0) begin
            for (i = 0; i < 2; i = i + 1) begin
                if (dqs[i] != (writing[0] == 0)) violations = violations + 1;
                write_data[16 * (8 - writing) + 8 * i +: 8] = dq[8 * i +: 8];
                write_mask[2 * (8 - writing) + i] = dm[i];
            end
            writing = writing - 1;
            if (writing == 0) begin
                if (!words.exists(write_queue[write_out])) words[write_queue[write_out]] = 0;
                for (i = 0; i < 16; i = i + 1)
                    if (!write_mask[i]) words[write_queue[write_out]][8 * i +: 8] = write_data[8 * i +: 8];
                write_out = write_out + 1;
            end
        end
        writes = writes >> 1;
        // Commands, at rising edges.
        if (ck && !last_ck) begin
            now = now + 1;
            for (i = 0; i < 8; i = i + 1) if (closing[i] && now >= closes[i]) begin
                closing[i] = 0;
                is_open[i] = 0;
                precharge[i] = closes[i];
            end
            if (calibrated >= 0 && now - any_refresh > REFRESH && now - calibrated > REFRESH) begin
                violations = violations + 1;
                any_refresh = now;
            end
            if (cke) case ({ras_n, cas_n, we_n})
                3'b000: begin
                    if (is_open != 0 || now - any_mode < MRD) violations = violations + 1;
                    any_mode = now;
                    modes[ba[1:0]] = 1;
                    if (ba == 0) begin
                        cl = a[6:4] + 4;
                        if (a[1:0] != 0 || a[2] || !(cl >= 5 && cl <= 11)) violations = violations + 1;
                    end
                    if (ba == 2) cwl = a[5:3] + 5;
                    if (ba == 1 && (a[4:3] != 0 || a[0] || a[7])) violations = violations + 1;
                end
                3'b001: begin
                    if (is_open != 0 || calibrated < 0 || now - any_refresh < RFC) violations = violations + 1;
                    for (i = 0; i < 8; i = i + 1) if (now - precharge[i] < RP) violations = violations + 1;
                    any_refresh = now;
                end
                3'b010: for (i = 0; i < 8; i = i + 1) if (a[10] || i == ba) begin
                    if (is_open[i] && (now - active[i] < RAS || now - read_at[i] < RTP || now - write_end[i] < WR))
                        violations = violations + 1;
                    if (is_open[i]) precharge[i] = now;
                    is_open[i] = 0;
                    closing[i] = 0;
                end
                3'b011: begin
                    if (is_open[ba] || modes != 4'hf || calibrated < 0 || now - calibrated < ZQ || now - any_mode < MOD
                        || now - precharge[ba] < RP || now - active[ba] < RC || now - any_refresh < RFC
                        || now - any_active[0] < RRD || now - any_active[3] < FAW) violations = violations + 1;
                    is_open[ba] = 1;
                    row[ba] = a;
                    active[ba] = now;
                    for (i = 3; i > 0; i = i - 1) any_active[i] = any_active[i - 1];
                    any_active[0] = now;
                end
                3'b100: begin
                    if (!is_open[ba] || closing[ba] || now - active[ba] < RCD || now - any_write_end < CCD - cwl - 4
                        || now - any_read < cl - cwl + CCD + 2 || a[2:0] != 0 || !odt) violations = violations + 1;
                    writes[2 * cwl - 1] = 1;
                    write_queue[write_in] = address;
                    write_in = write_in + 1;
                    write_end[ba] = now + cwl + 4;
                    any_write_end = write_end[ba];
                    if (a[10]) begin
                        closing[ba] = 1;
                        closes[ba] = write_end[ba] + WR;
                    end
                end
                3'b101: begin
                    if (!is_open[ba] || closing[ba] || now - active[ba] < RCD || now - any_write_end < WTR
                        || now - any_read < CCD || a[2:0] != 0) violations = violations + 1;
                    reads[2 * cl - 1] = 1;
                    read_queue[read_in] = address;
                    read_in = read_in + 1;
                    read_at[ba] = now;
                    any_read = now;
                    if (a[10]) begin
                        closing[ba] = 1;
                        closes[ba] = now + RTP > active[ba] + RAS ? now + RTP : active[ba] + RAS;
                    end
                end
                3'b110: begin
                    if (!a[10] || modes != 4'hf || is_open != 0) violations = violations + 1;
                    calibrated = now;
                end
                default: ;
            endcase
        end
        last_ck = ck;
        // A read's bits, behind two ticks of a strobe that is low.
        if (reads[0]) begin
            reading = 8;
            read_data = words.exists(read_queue[read_out]) ? words[read_queue[read_out]] : 0;
            read_out = read_out + 1;
        end
        now_on = reading != 0 || reads[1] || reads[2];
        now_strobe = reading != 0 && reading[0] == 0;
        now_out = reading != 0 ? read_data[16 * (8 - reading) +: 16] : 0;
        if (reading != 0) reading = reading - 1;
        reads = reads >> 1;
        out[0] <= now_out;
        out_strobe[0] <= now_strobe;
        out_on[0] <= now_on;
        for (i = 1; i < 8; i = i + 1) begin
            out[i] <= out[i - 1];
            out_strobe[i] <= out_strobe[i - 1];
            out_on[i] <= out_on[i - 1];
        end
    end
endmodule
