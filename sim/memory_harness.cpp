// The accelerator with a clock and a memory: AXI4 master served from an array, AXI4-Lite driven by calls.
//
// The generated header `model.h` names the model and the bytes of its bus. Called through ctypes.

#include <cstdint>
#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "model.h"  // TRACE: 0 for no waveforms, 1 for FST, 2 for VCD
#if TRACE == 1
#include "verilated_fst_c.h"
using Waveform = VerilatedFstC;
#elif TRACE == 2
#include "verilated_vcd_c.h"
using Waveform = VerilatedVcdC;
#endif

namespace {

struct Random {
    uint64_t state;
    bool chance(uint32_t per_256) {
        if (!per_256) return false;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return ((state >> 32) & 255) < per_256;
    }
};

template <typename T>
void to_port(T& port, const uint8_t* bytes) { std::memcpy(&port, bytes, BUS_BYTES); }
template <std::size_t N>
void to_port(VlWide<N>& port, const uint8_t* bytes) { std::memcpy(port.data(), bytes, BUS_BYTES); }
template <typename T>
void from_port(const T& port, uint8_t* bytes) { std::memcpy(bytes, &port, BUS_BYTES); }
template <std::size_t N>
void from_port(const VlWide<N>& port, uint8_t* bytes) { std::memcpy(bytes, port.data(), BUS_BYTES); }

struct Burst {
    uint64_t address;
    uint32_t left;
    int64_t ready;  // the cycle from which it may be answered
};

// What the accelerator offers on a channel must stay until it is taken.
struct Offer {
    bool waits = false;
    uint64_t content = 0;
    bool broken(bool valid, bool ready, uint64_t now) {
        const bool bad = waits && (!valid || now != content);
        waits = valid && !ready;
        content = now;
        return bad;
    }
};

template <typename T>
uint64_t digest(const T& port) {
    uint8_t bytes[BUS_BYTES];
    uint64_t value = 0;
    from_port(port, bytes);
    for (uint8_t byte : bytes) value = (value ^ byte) * 0x100000001B3ull;
    return value;
}

}  // namespace

extern "C" {

// A beat written: the clock cycle, its first byte's offset, and the bytes that were enabled.
struct Store {
    int64_t cycle;
    uint64_t offset;
    uint64_t strobe;
};

// How the memory behaves, and what a run gave. Rates are chances in 256 per cycle.
struct Memory {
    uint8_t* bytes;
    uint64_t base;
    uint64_t size;
    int64_t latency;         // cycles from an address to its first beat, and from the last beat to the answer
    uint32_t beats_per_256;  // beats in 256 cycles: of each direction, or of both together
    uint32_t shared;
    uint32_t stall;          // chance in 256 that a channel rests for a cycle
    uint64_t error_low;      // bursts that touch [error_low, error_high) are answered with an error
    uint64_t error_high;
    uint64_t seed;
    int64_t protocol_errors;  // out: bursts outside the memory, data without an address, offers changed or withdrawn
    int64_t reads_done, writes_done;
};

// What is looked at of every beat written, and a fault to be made.
struct Record {
    int64_t flipped_beat;  // of the beats written since the start, the one that is stored with a bit flipped, if any
    int64_t flipped_bit;
    Store* stores;         // of each beat
    uint8_t* stored;       // what memory holds afterwards, BUS_BYTES each
    int64_t capacity;
    int64_t count;         // out
};

// Activity of the units, one sample in every `period` cycles: how often each bit was set since.
struct Timeline {
    uint16_t* samples;  // capacity * bits
    int64_t capacity;
    int64_t period;
    int32_t bits;
    int64_t count;     // out
    int64_t* events;   // pairs of (cycle, bits of completion pulses)
    int64_t event_capacity;
    int64_t event_count;  // out
    int32_t event_shift;  // first bit of the completion pulses
};

struct Handle {
    VerilatedContext context;
    Model model{&context};
    int64_t cycle = 0;
    std::deque<Burst> reads, writes, answers;
    Random random{1};
    int64_t read_credit = 0, write_credit = 0;
    bool prefer_write = false;
    bool r_valid = false, b_valid = false;
    Offer ar, aw, w;
    Record* record = nullptr;
#if TRACE
    Waveform* trace = nullptr;
    int64_t trace_from = 0, trace_to = 0;
#endif
};

Handle* accelerator_open() {
    auto* handle = new Handle;
#if TRACE
    handle->context.traceEverOn(true);
#endif
    return handle;
}

int64_t accelerator_cycle(const Handle* handle) { return handle->cycle; }

void accelerator_close(Handle* handle) {
#if TRACE
    if (handle->trace) { handle->trace->close(); delete handle->trace; }
#endif
    handle->model.final();
    delete handle;
}

#if TRACE
void accelerator_trace(Handle* handle, const char* path, int64_t from, int64_t to) {
    handle->trace = new Waveform;
    handle->model.trace(handle->trace, 99);
    handle->trace->open(path);
    handle->trace_from = from;
    handle->trace_to = to;
}
#endif

static void tick(Handle* handle, Memory* memory) {
    Model& m = handle->model;
    const int64_t now = handle->cycle++;
    Random& random = handle->random;
    // A budget of beats; what is saved up is at most a few.
    int64_t& read_credit = handle->read_credit;
    int64_t& write_credit = memory->shared ? handle->read_credit : handle->write_credit;
    read_credit = std::min<int64_t>(read_credit + memory->beats_per_256, 4 * 256);
    if (!memory->shared) write_credit = std::min<int64_t>(write_credit + memory->beats_per_256, 4 * 256);

    const bool can_read = !handle->reads.empty() && handle->reads.front().ready <= now;
    // Once offered, a beat stays offered.
    if (!handle->r_valid && can_read && read_credit >= 256 && !random.chance(memory->stall) &&
        !(memory->shared && handle->prefer_write && m.m_axi_wvalid)) {
        const Burst& burst = handle->reads.front();
        const uint64_t offset = burst.address - memory->base;
        static const uint8_t zeros[BUS_BYTES] = {};
        const bool inside = burst.address >= memory->base && offset + BUS_BYTES <= memory->size;
        to_port(m.m_axi_rdata, inside ? memory->bytes + offset : zeros);
        const bool bad = !inside || (burst.address < memory->error_high && burst.address + BUS_BYTES > memory->error_low);
        if (!inside) memory->protocol_errors++;
        m.m_axi_rresp = bad ? 2 : 0;
        m.m_axi_rlast = burst.left == 1;
        handle->r_valid = true;
        read_credit -= 256;
    }
    m.m_axi_rvalid = handle->r_valid;
    m.m_axi_arready = handle->reads.size() < 64 && !random.chance(memory->stall);
    m.m_axi_awready = handle->writes.size() < 16 && !random.chance(memory->stall);
    m.m_axi_wready = !handle->writes.empty() && write_credit >= 256 && !random.chance(memory->stall);
    if (!handle->b_valid && !handle->answers.empty() && handle->answers.front().ready <= now &&
        !random.chance(memory->stall)) {
        m.m_axi_bresp = handle->answers.front().left;
        handle->b_valid = true;
    }
    m.m_axi_bvalid = handle->b_valid;

    m.clk = 0;
    m.eval();
    const uint64_t ar = uint64_t(m.m_axi_araddr) << 8 | m.m_axi_arlen, aw = uint64_t(m.m_axi_awaddr) << 8 | m.m_axi_awlen;
    const uint64_t w = digest(m.m_axi_wdata) + m.m_axi_wlast;
    memory->protocol_errors += handle->ar.broken(m.m_axi_arvalid, m.m_axi_arready, ar) +
                               handle->aw.broken(m.m_axi_awvalid, m.m_axi_awready, aw) +
                               handle->w.broken(m.m_axi_wvalid, m.m_axi_wready, w);
    if (m.m_axi_arvalid && m.m_axi_arready)
        handle->reads.push_back({m.m_axi_araddr, uint32_t(m.m_axi_arlen) + 1, now + memory->latency});
    if (m.m_axi_rvalid && m.m_axi_rready) {
        Burst& burst = handle->reads.front();
        handle->r_valid = false;
        memory->reads_done++;
        burst.address += BUS_BYTES;
        if (--burst.left == 0) handle->reads.pop_front();
    }
    bool wrote = false;
    if (m.m_axi_wvalid && m.m_axi_wready) {
        Burst& burst = handle->writes.front();
        const uint64_t offset = burst.address - memory->base;
        const bool inside = burst.address >= memory->base && offset + BUS_BYTES <= memory->size;
        const bool bad = burst.address < memory->error_high && burst.address + BUS_BYTES > memory->error_low;
        if (!inside) memory->protocol_errors++;
        if (inside && !bad) {
            uint8_t data[BUS_BYTES];
            from_port(m.m_axi_wdata, data);
            for (int i = 0; i < BUS_BYTES; i++)
                if ((uint64_t(m.m_axi_wstrb) >> i) & 1) memory->bytes[offset + i] = data[i];
            if (Record* record = handle->record) {
                if (memory->writes_done == record->flipped_beat)
                    memory->bytes[offset + record->flipped_bit / 8] ^= 1 << (record->flipped_bit % 8);
                if (record->count < record->capacity) {
                    record->stores[record->count] = {now, offset, uint64_t(m.m_axi_wstrb)};
                    std::memcpy(record->stored + record->count * BUS_BYTES, memory->bytes + offset, BUS_BYTES);
                    record->count++;
                }
            }
        }
        if (!inside || bad) burst.ready = 1;
        burst.address += BUS_BYTES;
        if (m.m_axi_wlast != (burst.left == 1)) memory->protocol_errors++;
        if (--burst.left == 0) {
            handle->answers.push_back({0, burst.ready ? 2u : 0u, now + memory->latency});
            handle->writes.pop_front();
        }
        write_credit -= 256;
        memory->writes_done++;
        wrote = true;
    }
    handle->prefer_write = !wrote;
    if (m.m_axi_awvalid && m.m_axi_awready)
        handle->writes.push_back({m.m_axi_awaddr, uint32_t(m.m_axi_awlen) + 1, 0});
    if (m.m_axi_bvalid && m.m_axi_bready) {
        handle->b_valid = false;
        handle->answers.pop_front();
    }
#if TRACE
    if (handle->trace && now >= handle->trace_from && now < handle->trace_to) handle->trace->dump(uint64_t(2 * now));
#endif
    m.clk = 1;
    m.eval();
#if TRACE
    if (handle->trace && now >= handle->trace_from && now < handle->trace_to) handle->trace->dump(uint64_t(2 * now + 1));
#endif
}

void accelerator_reset(Handle* handle, Memory* memory) {
    Model& m = handle->model;
    m.m_axi_arready = m.m_axi_awready = m.m_axi_wready = m.m_axi_rvalid = m.m_axi_bvalid = 0;
    m.s_axi_awvalid = m.s_axi_wvalid = m.s_axi_arvalid = 0;
    m.s_axi_bready = m.s_axi_rready = 1;
    handle->reads.clear();
    handle->writes.clear();
    handle->answers.clear();
    handle->r_valid = handle->b_valid = false;
    handle->ar = handle->aw = handle->w = Offer{};
    handle->random.state = memory->seed * 0x9E3779B97F4A7C15ull + 0x1234567;
    m.rst = 1;
    for (int i = 0; i < 4; i++) {
        m.clk = 0;
        m.eval();
        m.clk = 1;
        m.eval();
    }
    m.rst = 0;
}

// Write a register; returns the bus's answer (0 is OKAY).
uint32_t accelerator_write(Handle* handle, Memory* memory, uint32_t offset, uint32_t value) {
    Model& m = handle->model;
    m.s_axi_awaddr = offset;
    m.s_axi_wdata = value;
    m.s_axi_wstrb = 15;
    m.s_axi_awvalid = m.s_axi_wvalid = 1;
    m.s_axi_bready = 1;
    for (int i = 0; i < 100; i++) {
        m.clk = 0;
        m.eval();
        const bool a = m.s_axi_awvalid && m.s_axi_awready, w = m.s_axi_wvalid && m.s_axi_wready;
        const bool b = m.s_axi_bvalid;
        const uint32_t answer = m.s_axi_bresp;
        tick(handle, memory);
        if (a) m.s_axi_awvalid = 0;
        if (w) m.s_axi_wvalid = 0;
        if (b) return answer;
    }
    return 99;
}

// Read a register; returns the bus's answer in the upper half.
uint64_t accelerator_read(Handle* handle, Memory* memory, uint32_t offset) {
    Model& m = handle->model;
    m.s_axi_araddr = offset;
    m.s_axi_arvalid = 1;
    m.s_axi_rready = 1;
    for (int i = 0; i < 100; i++) {
        m.clk = 0;
        m.eval();
        const bool a = m.s_axi_arvalid && m.s_axi_arready, r = m.s_axi_rvalid;
        const uint64_t answer = (uint64_t(m.s_axi_rresp) << 32) | uint32_t(m.s_axi_rdata);
        tick(handle, memory);
        if (a) m.s_axi_arvalid = 0;
        if (r) return answer;
    }
    return 99ull << 32;
}

// Look at what is written from now on; null: no more.
void accelerator_record(Handle* handle, Record* record) { handle->record = record; }

// Bursts that were begun and not completed.
int64_t accelerator_under_way(Handle* handle) {
    const Model& m = handle->model;
    return handle->reads.size() + handle->writes.size() + handle->answers.size() + m.m_axi_arvalid + m.m_axi_awvalid;
}

// Run until the interrupt, `most` cycles, or `patience` cycles without a transfer on the bus and without
// activity of the array. Returns the cycles run; negative when nothing moved.
int64_t accelerator_run(Handle* handle, Memory* memory, Timeline* timeline, int64_t most, int64_t patience) {
    Model& m = handle->model;
    const int64_t start = handle->cycle;
    int64_t moved = start;
    std::vector<uint16_t> now(timeline ? timeline->bits : 0, 0);
    while (!m.irq && handle->cycle - start < most) {
        tick(handle, memory);
        const uint32_t activity = m.activity;
        if ((activity & 1) || m.m_axi_rvalid || (m.m_axi_wvalid && m.m_axi_wready)) moved = handle->cycle;
        if (handle->cycle - moved > patience) return -(handle->cycle - start);
        if (timeline) {
            for (int i = 0; i < timeline->bits; i++) now[i] += (activity >> i) & 1;
            if ((handle->cycle - start) % timeline->period == 0 && timeline->count < timeline->capacity) {
                std::memcpy(timeline->samples + timeline->count * timeline->bits, now.data(), 2 * now.size());
                std::fill(now.begin(), now.end(), 0);
                timeline->count++;
            }
            const uint32_t pulses = activity >> timeline->event_shift;
            if (pulses && timeline->event_count < timeline->event_capacity) {
                timeline->events[2 * timeline->event_count] = handle->cycle - start;
                timeline->events[2 * timeline->event_count + 1] = pulses;
                timeline->event_count++;
            }
        }
    }
    return handle->cycle - start;
}
}
