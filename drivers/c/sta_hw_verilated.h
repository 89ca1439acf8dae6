/* The simulated accelerator, as sim/memory_harness.cpp builds it into a shared library: clock and memory included. */
#ifndef STA_HW_VERILATED_H
#define STA_HW_VERILATED_H

#include "sta_hw.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the simulated memory behaves, and what it saw: struct Memory of sim/memory_harness.cpp. */
struct sta_hw_verilated_memory {
    uint8_t *bytes;
    uint64_t base, size;
    int64_t latency; /* cycles */
    uint32_t beats_per_256, shared, stall;
    uint64_t error_low, error_high; /* addresses that answer with an error */
    uint64_t seed;
    int64_t protocol_errors, reads_done, writes_done;
};

struct sta_hw_verilated {
    struct sta_hw_verilated_memory memory;
    uint32_t cycles_per_millisecond, cycles_per_pause;
    void *library, *handle;
    void (*close)(void *handle);
    void (*reset)(void *handle, struct sta_hw_verilated_memory *memory);
    uint32_t (*write)(void *handle, struct sta_hw_verilated_memory *memory, uint32_t offset, uint32_t value);
    uint64_t (*read)(void *handle, struct sta_hw_verilated_memory *memory, uint32_t offset);
    int64_t (*run)(void *handle, struct sta_hw_verilated_memory *memory, void *timeline, int64_t most,
                   int64_t patience);
};

/* Load the library, reset the hardware, and fill in `bus`. `memory` is at `address` on the accelerator's bus.
 * Returns NULL, or what went wrong. */
const char *sta_hw_verilated_open(struct sta_hw_verilated *model, struct sta_hw_bus *bus, const char *library,
                                  uint8_t *memory, uint32_t bytes, uint64_t address);

/* After a failed opening, or once more, it does nothing. */
void sta_hw_verilated_close(struct sta_hw_verilated *model);

#ifdef __cplusplus
}
#endif

#endif
