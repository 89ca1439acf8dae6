// A board in simulation: board core, LiteDRAM controller, SDRAM chip; the host has the serial line.
module board #(parameter BUS_BYTES = 8, parameter ADDRESS_BITS = 25) (
    input clk, input rst, input rx, output tx, output ready, output busy, output failed, output [31:0] violations
);
    wire [31:0] awaddr, araddr;
    wire [7:0] awlen, arlen;
    wire [2:0] awsize, arsize;
    wire [1:0] awburst, arburst, bresp, rresp;
    wire awid, arid, bid, rid, awvalid, awready, arvalid, arready, wvalid, wready, wlast, bvalid, bready;
    wire rvalid, rready, rlast;
    wire [8*BUS_BYTES-1:0] wdata, rdata;
    wire [BUS_BYTES-1:0] wstrb;
    wire [29:0] host_adr, control_adr;
    wire [31:0] host_dat_w, host_dat_r, control_dat_w, control_dat_r;
    wire [3:0] host_sel, control_sel;
    wire host_cyc, host_stb, host_we, host_ack, control_cyc, control_stb, control_we, control_ack;
    wire [12:0] a;
    wire [1:0] ba, dm;
    wire [15:0] dq;
    wire cas_n, cke, cs_n, ras_n, we_n;
    board_core core (
        .clk(clk), .rst(rst), .rx(rx), .tx(tx), .ready(ready), .busy(busy), .failed(failed),
        .m_axi_awid(awid), .m_axi_awaddr(awaddr), .m_axi_awlen(awlen), .m_axi_awsize(awsize),
        .m_axi_awburst(awburst), .m_axi_awvalid(awvalid), .m_axi_awready(awready),
        .m_axi_arid(arid), .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(arsize),
        .m_axi_arburst(arburst), .m_axi_arvalid(arvalid), .m_axi_arready(arready),
        .m_axi_wdata(wdata), .m_axi_wstrb(wstrb), .m_axi_wlast(wlast), .m_axi_wvalid(wvalid), .m_axi_wready(wready),
        .m_axi_bid(bid), .m_axi_bresp(bresp), .m_axi_bvalid(bvalid), .m_axi_bready(bready),
        .m_axi_rid(rid), .m_axi_rdata(rdata), .m_axi_rresp(rresp), .m_axi_rlast(rlast), .m_axi_rvalid(rvalid),
        .m_axi_rready(rready),
        .host_adr(host_adr), .host_dat_w(host_dat_w), .host_dat_r(host_dat_r), .host_sel(host_sel),
        .host_cyc(host_cyc), .host_stb(host_stb), .host_we(host_we), .host_ack(host_ack),
        .control_adr(control_adr), .control_dat_w(control_dat_w), .control_dat_r(control_dat_r),
        .control_sel(control_sel), .control_cyc(control_cyc), .control_stb(control_stb), .control_we(control_we),
        .control_ack(control_ack)
    );
    litedram_core memory (
        .clk(clk), .rst(rst), .sdram_a(a), .sdram_ba(ba), .sdram_cas_n(cas_n), .sdram_cke(cke), .sdram_cs_n(cs_n),
        .sdram_dm(dm), .sdram_dq(dq), .sdram_ras_n(ras_n), .sdram_we_n(we_n),
        .user_port_data_awid(awid), .user_port_data_awaddr(awaddr[ADDRESS_BITS-1:0]), .user_port_data_awlen(awlen),
        .user_port_data_awsize({1'b0, awsize}), .user_port_data_awburst(awburst), .user_port_data_awvalid(awvalid),
        .user_port_data_awready(awready),
        .user_port_data_arid(arid), .user_port_data_araddr(araddr[ADDRESS_BITS-1:0]), .user_port_data_arlen(arlen),
        .user_port_data_arsize({1'b0, arsize}), .user_port_data_arburst(arburst), .user_port_data_arvalid(arvalid),
        .user_port_data_arready(arready),
        .user_port_data_wdata(wdata), .user_port_data_wstrb(wstrb), .user_port_data_wlast(wlast),
        .user_port_data_wvalid(wvalid), .user_port_data_wready(wready),
        .user_port_data_bid(bid), .user_port_data_bresp(bresp), .user_port_data_bvalid(bvalid),
        .user_port_data_bready(bready),
        .user_port_data_rid(rid), .user_port_data_rdata(rdata), .user_port_data_rresp(rresp),
        .user_port_data_rlast(rlast), .user_port_data_rvalid(rvalid), .user_port_data_rready(rready),
        .user_port_host_adr(host_adr[ADDRESS_BITS-3:0]), .user_port_host_dat_w(host_dat_w),
        .user_port_host_dat_r(host_dat_r), .user_port_host_sel(host_sel), .user_port_host_cyc(host_cyc),
        .user_port_host_stb(host_stb), .user_port_host_we(host_we), .user_port_host_ack(host_ack),
        .wb_ctrl_adr(control_adr), .wb_ctrl_dat_w(control_dat_w), .wb_ctrl_dat_r(control_dat_r),
        .wb_ctrl_sel(control_sel), .wb_ctrl_cyc(control_cyc), .wb_ctrl_stb(control_stb), .wb_ctrl_we(control_we),
        .wb_ctrl_ack(control_ack), .wb_ctrl_bte(2'b0), .wb_ctrl_cti(3'b0)
    );
    sdram chip (
        .clk(clk), .cke(cke), .cs_n(cs_n), .ras_n(ras_n), .cas_n(cas_n), .we_n(we_n), .ba(ba), .a(a), .dm(dm), .dq(dq),
        .violations(violations)
    );
endmodule
