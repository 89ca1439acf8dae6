// A SoC of LiteX's simulation platform; what its serial line says, as bytes. Called through ctypes.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "model.h"

struct Soc {
    Model model;
    std::vector<uint8_t> from_soc;

    void step() {
        model.sys_clk = 0;
        model.serial_source_ready = 1;
        model.eval();
        if (model.serial_source_valid) from_soc.push_back(model.serial_source_data);
        model.sys_clk = 1;
        model.eval();
    }
};

extern "C" {

// The files that memories begin with are read from the folder that the process is in.
Soc* soc_open() {
    Soc* soc = new Soc;
    soc->model.sys_clk = 0;
    soc->model.serial_sink_valid = 0;
    soc->model.eval();
    return soc;
}
void soc_close(Soc* soc) { delete soc; }
// Runs until `room` bytes have come or `most` cycles are over; `cycles` is how many it were. Gives how many bytes.
int64_t soc_run(Soc* soc, int64_t most, uint8_t* bytes, int64_t room, int64_t* cycles) {
    int64_t gone = 0;
    while (gone < most && int64_t(soc->from_soc.size()) < room) {
        soc->step();
        gone++;
    }
    int64_t found = std::min<int64_t>(room, soc->from_soc.size());
    std::copy(soc->from_soc.begin(), soc->from_soc.begin() + found, bytes);
    soc->from_soc.erase(soc->from_soc.begin(), soc->from_soc.begin() + found);
    *cycles = gone;
    return found;
}
}
