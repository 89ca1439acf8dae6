// Traffic for a DDR3's controller as the accelerator's DMA makes it, with cells and chip behind: bursts of 8 beats of 16
// bytes, at consecutive addresses, so many under way at a time. `beats` counts those that came or went in `window`
// cycles, `latency` is from the first address to its first beat.
module board (
    input clk, input rst, input [3:0] outstanding, input reads, input writes, output reg [31:0] beats, output reg [31:0] latency,
    output reg done, output [31:0] violations
);
    localparam WINDOW = 100000, WARM = 2000;
    wire user_clk, user_rst, cke, cas_n, ras_n, we_n, odt, ck;
    wire [14:0] a;
    wire [2:0] ba;
    wire [1:0] dm, dqs;
    wire [15:0] dq;
    wire arready, awready, wready, rvalid, rlast, bvalid, ctrl_ack;
    wire [127:0] rdata;
    reg [28:0] araddr, awaddr;
    reg [7:0] asked, written;
    reg [2:0] beat;
    reg [31:0] now, first;
    reg [15:0] wait_for;
    reg [7:0] number;
    reg ready, sent;
    reg [63:0] entry;
    always @(*) case (number)
        START_UP
        default: entry = 0;
    endcase
    wire going = ready && now < WARM + WINDOW;
    wire arvalid = going && reads && asked < outstanding;
    // Data go ahead of their address, as LiteDRAM asks for.
    wire awvalid = going && writes && written < outstanding;
    wire wvalid = going && writes;
    always @(posedge user_clk) if (user_rst) begin
        araddr <= 0; awaddr <= 29'h10000000; asked <= 0; written <= 0; beat <= 0; now <= 0; first <= 0; number <= 0;
        ready <= 0; beats <= 0; latency <= 0; done <= 0; wait_for <= 0; sent <= 0;
    end else if (!ready) begin
        if (wait_for != 0) wait_for <= wait_for - 1;
        else if (number == COUNT) ready <= 1;
        else if (ctrl_ack) begin
            wait_for <= entry[15:0] + 1;
            number <= number + 1;
        end
    end else begin
        now <= now + 1;
        if (arvalid && arready) begin
            araddr <= araddr + 128;
            if (!sent) first <= now;
            sent <= 1;
        end
        asked <= asked + (arvalid && arready) - (rvalid && rlast);
        if (awvalid && awready) awaddr <= awaddr + 128;
        written <= written + (awvalid && awready) - bvalid;
        if (wvalid && wready) beat <= beat + 1;
        if (rvalid && latency == 0) latency <= now - first;
        if (now >= WARM && now < WARM + WINDOW) beats <= beats + rvalid + (wvalid && wready);
        done <= now == WARM + WINDOW || done;
    end
    litedram_core memory (
        .clk(clk), .rst(rst), .user_clk(user_clk), .user_rst(user_rst),
        .ddram_a(a), .ddram_ba(ba), .ddram_cas_n(cas_n), .ddram_cke(cke), .ddram_clk_p(ck), .ddram_dm(dm), .ddram_dq(dq),
        .ddram_dqs_p(dqs), .ddram_odt(odt), .ddram_ras_n(ras_n), .ddram_we_n(we_n),
        .user_port_data_araddr(araddr), .user_port_data_arburst(2'd1), .user_port_data_arid(1'b0),
        .user_port_data_arlen(8'd7), .user_port_data_arsize(4'd4), .user_port_data_arvalid(arvalid),
        .user_port_data_arready(arready), .user_port_data_awaddr(awaddr), .user_port_data_awburst(2'd1),
        .user_port_data_awid(1'b0), .user_port_data_awlen(8'd7), .user_port_data_awsize(4'd4),
        .user_port_data_awvalid(awvalid), .user_port_data_awready(awready), .user_port_data_bready(1'b1),
        .user_port_data_bvalid(bvalid), .user_port_data_rdata(rdata), .user_port_data_rlast(rlast),
        .user_port_data_rready(1'b1), .user_port_data_rvalid(rvalid), .user_port_data_wdata({4{now}}),
        .user_port_data_wlast(beat == 7), .user_port_data_wready(wready), .user_port_data_wstrb(16'hffff),
        .user_port_data_wvalid(wvalid), .user_port_host_adr(27'b0), .user_port_host_cyc(1'b0),
        .user_port_host_dat_w(32'b0), .user_port_host_sel(4'b0), .user_port_host_stb(1'b0), .user_port_host_we(1'b0),
        .wb_ctrl_adr({16'b0, entry[61:48]}), .wb_ctrl_bte(2'b0), .wb_ctrl_cti(3'b0),
        .wb_ctrl_cyc(!ready && wait_for == 0 && number != COUNT), .wb_ctrl_stb(!ready && wait_for == 0 && number != COUNT),
        .wb_ctrl_dat_w(entry[47:16]), .wb_ctrl_sel(4'hf), .wb_ctrl_we(1'b1), .wb_ctrl_ack(ctrl_ack)
    );
    ddr3 chip (
        .tick(clk), .ck(ck), .cke(cke), .ras_n(ras_n), .cas_n(cas_n), .we_n(we_n), .ba(ba), .a(a), .dm(dm), .odt(odt),
        .dq(dq), .dqs(dqs), .violations(violations)
    );
endmodule
