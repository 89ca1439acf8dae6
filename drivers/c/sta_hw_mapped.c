/* Registers and memory in the processor's address space; sta_hw_mapped.h says how. */
#include "sta_hw_mapped.h"

/* `volatile` orders accesses for the compiler alone: processors with weak ordering let a start overtake the data. */
#ifndef STA_HW_MAPPED_BARRIER
#if !defined(__GNUC__)
#error "define STA_HW_MAPPED_BARRIER() as the barrier that orders this processor's accesses to memory and devices"
#elif defined(__riscv)
#define STA_HW_MAPPED_BARRIER() __asm__ volatile("fence iorw, iorw" ::: "memory")
#elif defined(__aarch64__) || defined(__ARM_ARCH_6M__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
#define STA_HW_MAPPED_BARRIER() __asm__ volatile("dsb sy" ::: "memory")
#else
#define STA_HW_MAPPED_BARRIER() __sync_synchronize()
#endif
#endif

static void order(const struct sta_hw_mapped *mapped) {
    if (mapped->barrier)
        mapped->barrier();
    else
        STA_HW_MAPPED_BARRIER();
}

/* A status that says that the program ended comes ahead of what is read of its results. */
static int read_register(void *context, uint32_t offset, uint32_t *value) {
    const struct sta_hw_mapped *mapped = context;
    *value = mapped->registers[offset / 4];
    order(mapped);
    return 0;
}

/* All data are in memory ahead of a start. */
static int write_register(void *context, uint32_t offset, uint32_t value) {
    const struct sta_hw_mapped *mapped = context;
    order(mapped);
    mapped->registers[offset / 4] = value;
    return 0;
}

/* Memory that is not cached takes aligned accesses alone on some processors, and a library's memcpy makes others. */
static int put(void *context, uint32_t offset, const void *bytes, uint32_t count) {
    const struct sta_hw_mapped *mapped = context;
    volatile uint8_t *const start = mapped->memory + offset;
    const uint8_t *from = bytes;
    uint32_t at = 0;
    while (at < count) {
        if (count - at >= 4 && ((uintptr_t)(start + at) & 3) == 0) {
            *(volatile uint32_t *)(void *)(uintptr_t)(start + at) = (uint32_t)from[at] | (uint32_t)from[at + 1] << 8 |
                                                                    (uint32_t)from[at + 2] << 16 |
                                                                    (uint32_t)from[at + 3] << 24;
            at += 4;
        } else {
            start[at] = from[at];
            at++;
        }
    }
    if (mapped->clean)
        mapped->clean(start, count);
    return 0;
}

static int get(void *context, uint32_t offset, void *bytes, uint32_t count) {
    const struct sta_hw_mapped *mapped = context;
    volatile uint8_t *const start = mapped->memory + offset;
    uint8_t *to = bytes;
    uint32_t at = 0;
    if (mapped->invalidate)
        mapped->invalidate(start, count);
    while (at < count) {
        if (count - at >= 4 && ((uintptr_t)(start + at) & 3) == 0) {
            const uint32_t word = *(volatile uint32_t *)(void *)(uintptr_t)(start + at);
            to[at] = (uint8_t)word;
            to[at + 1] = (uint8_t)(word >> 8);
            to[at + 2] = (uint8_t)(word >> 16);
            to[at + 3] = (uint8_t)(word >> 24);
            at += 4;
        } else {
            to[at] = start[at];
            at++;
        }
    }
    return 0;
}

static int wait(void *context, uint32_t milliseconds) {
    struct sta_hw_mapped *mapped = context;
    while (!mapped->raised && milliseconds--)
        mapped->idle();
    if (!mapped->raised)
        return STA_HW_TIMED_OUT;
    mapped->raised = 0;
    return STA_HW_RAISED;
}

void sta_hw_mapped_bus(struct sta_hw_bus *bus, struct sta_hw_mapped *mapped, uint64_t address, uint32_t bytes) {
    bus->context = mapped;
    bus->memory_address = address;
    bus->memory_bytes = bytes;
    bus->read = read_register;
    bus->write = write_register;
    bus->put = put;
    bus->get = get;
    bus->wait = mapped->idle ? wait : NULL;
    bus->pause = NULL;
    mapped->raised = 0;
}

void sta_hw_mapped_interrupt(struct sta_hw_mapped *mapped) {
    mapped->registers[STA_HW_REG_INTERRUPT_CLEAR / 4] = 1;
    mapped->raised = 1;
}
