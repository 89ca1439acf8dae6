// Registers and controller alone, a clock and random stimuli: every cycle's inputs come from an array, every cycle's
// outputs go to one.
//
// The generated header `model.h` names the model. Called through ctypes.

#include <cstdint>

#include "model.h"

extern "C" {

// Bits of `flags`: 0 core_idle, 1 core_finished, 2 core_failed, 3 bready, 4 rready; 5, 6, 7: where nothing is offered
// on AW, W, AR, the next write's address, the next write's word, this cycle's read address is.
struct Cycle {
    uint32_t flags, read_address, error, instruction, stalled, events;
};

struct Write {
    uint32_t address, data, strobes;
};

// Bits of `flags`: 0 awready, 1 wready, 2 bvalid, 3 to 4 bresp, 5 arready, 6 rvalid, 7 to 8 rresp, 9 interrupt, 10 busy,
// 11 last_failed, 12 core_start, 13 core_stop, 14 core_reset, 15 running; 16 awvalid, 17 wvalid, 18 arvalid.
// The offered address, word, strobes and read address are those on the bus.
struct Outputs {
    uint32_t flags;
    uint32_t read_data, image_address, image_size, program_address, length;
    uint32_t write_address, write_data, write_strobes, read_address;
};

struct Handle {
    VerilatedContext context;
    Model model{&context};
    uint64_t addresses = 0, words = 0;  // offered so far
};

Handle* control_open() {
    auto* handle = new Handle;
    Model& m = handle->model;
    m.s_axi_awvalid = m.s_axi_wvalid = m.s_axi_arvalid = m.s_axi_bready = m.s_axi_rready = 0;
    m.core_idle = m.core_finished = m.core_failed = 0;
    m.rst = 1;
    for (int i = 0; i < 4; i++) {
        m.clk = 0;
        m.eval();
        m.clk = 1;
        m.eval();
    }
    m.rst = 0;
    return handle;
}

void control_close(Handle* handle) {
    handle->model.final();
    delete handle;
}

// The list of `writes` writes begins again when it is through.
void control_run(
    Handle* handle, const Cycle* cycles, Outputs* outputs, int64_t count, const Write* list, int64_t writes) {
    Model& m = handle->model;
    for (int64_t i = 0; i < count; i++) {
        const Cycle& c = cycles[i];
        m.core_idle = c.flags & 1;
        m.core_finished = (c.flags >> 1) & 1;
        m.core_failed = (c.flags >> 2) & 1;
        m.s_axi_bready = (c.flags >> 3) & 1;
        m.s_axi_rready = (c.flags >> 4) & 1;
        m.error = c.error;
        m.instruction = c.instruction;
        m.stalled = c.stalled;
        m.events = c.events;
        // Once offered, an address or a word stays offered until it is taken.
        if (!m.s_axi_awvalid && ((c.flags >> 5) & 1)) {
            m.s_axi_awvalid = 1;
            m.s_axi_awaddr = list[handle->addresses++ % writes].address;
        }
        if (!m.s_axi_wvalid && ((c.flags >> 6) & 1)) {
            m.s_axi_wvalid = 1;
            const Write& write = list[handle->words++ % writes];
            m.s_axi_wdata = write.data;
            m.s_axi_wstrb = write.strobes;
        }
        if (!m.s_axi_arvalid && ((c.flags >> 7) & 1)) {
            m.s_axi_arvalid = 1;
            m.s_axi_araddr = c.read_address;
        }
        m.clk = 0;
        m.eval();
        const bool aw = m.s_axi_awvalid && m.s_axi_awready, w = m.s_axi_wvalid && m.s_axi_wready;
        const bool ar = m.s_axi_arvalid && m.s_axi_arready;
        outputs[i] = {
            uint32_t(m.s_axi_awready) | uint32_t(m.s_axi_wready) << 1 | uint32_t(m.s_axi_bvalid) << 2 |
                uint32_t(m.s_axi_bresp) << 3 | uint32_t(m.s_axi_arready) << 5 | uint32_t(m.s_axi_rvalid) << 6 |
                uint32_t(m.s_axi_rresp) << 7 | uint32_t(m.irq) << 9 | uint32_t(m.busy) << 10 |
                uint32_t(m.last_failed) << 11 | uint32_t(m.core_start) << 12 | uint32_t(m.core_stop) << 13 |
                uint32_t(m.core_reset) << 14 | uint32_t(m.running) << 15 | uint32_t(m.s_axi_awvalid) << 16 |
                uint32_t(m.s_axi_wvalid) << 17 | uint32_t(m.s_axi_arvalid) << 18,
            m.s_axi_rdata, m.image_address, m.image_size, m.program_address, m.length,
            m.s_axi_awaddr, m.s_axi_wdata, m.s_axi_wstrb, m.s_axi_araddr,
        };
        m.clk = 1;
        m.eval();
        if (aw) m.s_axi_awvalid = 0;
        if (w) m.s_axi_wvalid = 0;
        if (ar) m.s_axi_arvalid = 0;
    }
}
}
