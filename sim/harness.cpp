// A Verilated model driven through its valid/ready streams, clock and all, without Python in the loop.
//
// The generated header `model.h` names the model and lists its streams; the functions below are called
// through ctypes. Payloads lie in arrays of 32-bit words, a whole number of words per beat.

#include <cstdint>
#include <cstring>

#include "model.h"

namespace {

struct Random {
    uint64_t state;
    uint32_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<uint32_t>(state >> 32);
    }
    bool chance(uint32_t per_256) { return per_256 && (next() & 255) < per_256; }
};

template <typename T>
void set_payload(T& port, const uint32_t* words, int count) {
    uint64_t value = words[0];
    if (count > 1) value |= static_cast<uint64_t>(words[1]) << 32;
    port = static_cast<T>(value);
}
template <std::size_t N>
void set_payload(VlWide<N>& port, const uint32_t* words, int) {
    for (std::size_t i = 0; i < N; i++) port[i] = words[i];
}
template <typename T>
void get_payload(const T& port, uint32_t* words, int count) {
    words[0] = static_cast<uint32_t>(port);
    if (count > 1) words[1] = static_cast<uint32_t>(static_cast<uint64_t>(port) >> 32);
}
template <std::size_t N>
void get_payload(const VlWide<N>& port, uint32_t* words, int) {
    for (std::size_t i = 0; i < N; i++) words[i] = port[i];
}

}  // namespace

extern "C" {

// One stream for one run. Inputs: `count` beats are sent. Outputs: up to `count` beats are taken.
struct StreamJob {
    uint32_t* words;   // count * words_per_beat
    int64_t* cycles;   // count: the cycle each beat was transferred in
    int64_t count;
    int64_t done;      // out: beats transferred
    int64_t surplus;   // out: beats an output offered beyond `count`
    uint32_t stall;    // chance in 256 of an idle cycle
    uint32_t waiting;  // out: 1 valid without ready, 2 ready without valid, at the end of the run
};

struct Handle {
    VerilatedContext context;
    Model model{&context};
    int64_t cycle = 0;
};

Handle* sta_open() {
    auto* handle = new Handle;
    handle->model.clk = 0;
    return handle;
}

void sta_close(Handle* handle) {
    handle->model.final();
    delete handle;
}

void sta_reset(Handle* handle) {
    Model& model = handle->model;
    quiet_streams(model);
    model.rst = 1;
    for (int i = 0; i < 4; i++) {
        model.clk = 0;
        model.eval();
        model.clk = 1;
        model.eval();
    }
    model.rst = 0;
}

// Run until every stream has transferred `count` beats, then `linger` cycles more.
// Returns the cycles run; negative when nothing moved for `patience` cycles.
int64_t sta_run(Handle* handle, StreamJob* jobs, uint64_t seed, int64_t patience, int64_t linger) {
    Model& model = handle->model;
    Random random{seed * 0x9E3779B97F4A7C15ull + 0x1234567};
    bool offering[STREAMS] = {};
    int64_t start = handle->cycle, moved = handle->cycle;
    for (int s = 0; s < STREAMS; s++) jobs[s].done = jobs[s].surplus = jobs[s].waiting = 0;
    int64_t ending = -1;
    for (;;) {
        bool complete = true;
        for (int s = 0; s < STREAMS; s++) {
            StreamJob& job = jobs[s];
            bool more = job.done < job.count;
            complete &= !more;
            if (INPUT[s]) {
                // Once offered, a beat stays offered until it is taken.
                if (!offering[s] && more && !random.chance(job.stall)) {
                    offering[s] = true;
                    drive(model, s, job.words + job.done * WORDS[s]);
                }
                offer(model, s, offering[s]);
            } else {
                offer(model, s, !random.chance(job.stall));
            }
        }
        if (complete && ending < 0) ending = handle->cycle + linger;
        if (complete && handle->cycle >= ending) break;
        model.clk = 0;
        model.eval();
        for (int s = 0; s < STREAMS; s++) {
            StreamJob& job = jobs[s];
            bool valid = valid_of(model, s), ready = ready_of(model, s);
            job.waiting = valid && !ready ? 1 : ready && !valid ? 2 : 0;
            if (!valid || !ready) continue;
            moved = handle->cycle;
            if (job.done == job.count) {
                job.surplus++;
                continue;
            }
            if (!INPUT[s]) sample(model, s, job.words + job.done * WORDS[s]);
            if (job.cycles) job.cycles[job.done] = handle->cycle - start;
            job.done++;
            offering[s] = false;
        }
        model.clk = 1;
        model.eval();
        handle->cycle++;
        if (handle->cycle - moved > patience && !complete) return -(handle->cycle - start);
    }
    return handle->cycle - start;
}
}
