/* A bus whose registers and memory are in the processor's address space: bare metal, and what other buses stand on. */
#ifndef STA_HW_MAPPED_H
#define STA_HW_MAPPED_H

#include "sta_hw.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All but `raised` is the caller's to fill in. Registers and memory are accessed in aligned words of 32 bits where they
 * can be, in bytes else, in the processor's own byte order: it has to be little-endian, as the accelerator is. */
struct sta_hw_mapped {
    volatile uint32_t *registers;
    volatile uint8_t *memory;      /* as the processor sees it */
    /* Where the processor's cache does not follow what the accelerator writes and reads: write back what was put there,
     * and forget what may be stale. NULL where the memory is not cached, or coherent. */
    void (*clean)(volatile uint8_t *start, uint32_t bytes);
    void (*invalidate)(volatile uint8_t *start, uint32_t bytes);
    /* Orders accesses of memory and registers: what was written before is there before anything after it. It is called
     * ahead of each register's write and behind each register's read. NULL: the processor's own instruction (fence, dsb
     * or what the compiler takes for one), which does unless a bridge between processor and memory needs more. */
    void (*barrier)(void);
    /* Waits about a millisecond, or less if there is an interrupt: `wfi` with a timer behind it. NULL without an
     * interrupt. */
    void (*idle)(void);
    volatile int raised;
};

/* Fill in a bus that goes through `mapped`. The memory begins at `address` on the accelerator's own bus. */
void sta_hw_mapped_bus(struct sta_hw_bus *bus, struct sta_hw_mapped *mapped, uint64_t address, uint32_t bytes);

/* To be called by the handler of the accelerator's interrupt: lowers the line, and wakes who waits. */
void sta_hw_mapped_interrupt(struct sta_hw_mapped *mapped);

#ifdef __cplusplus
}
#endif

#endif
