// Runs ddr3_traffic.v until its window is over.

#include <cstdint>

#include "model.h"

extern "C" int64_t traffic(int outstanding, int reads, int writes, int64_t* latency, int64_t* violations) {
    Model model;
    model.outstanding = outstanding;
    model.reads = reads;
    model.writes = writes;
    model.rst = 1;
    for (int64_t i = 0; i < 4'000'000 && !model.done; i++) {
        if (i == 64) model.rst = 0;
        model.clk = i & 1;
        model.eval();
    }
    *latency = model.latency;
    *violations = model.violations;
    return model.done ? model.beats : -1;
}
