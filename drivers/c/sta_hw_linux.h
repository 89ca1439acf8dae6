/* An accelerator under Linux: through a UIO device (with its interrupt), or through /dev/mem. */
#ifndef STA_HW_LINUX_H
#define STA_HW_LINUX_H

#include "sta_hw_mapped.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why opening failed: what was being done, and errno. Functions take NULL from who does not want to know. */
struct sta_hw_linux_problem {
    const char *doing;
    int error;
};

struct sta_hw_linux {
    struct sta_hw_mapped mapped;
    int file;                /* of the UIO device; -1 through /dev/mem */
    size_t register_bytes, memory_bytes;
    void *register_map, *memory_map;
};

/* A UIO device by its name ("uio0"): map 0 has the registers, map 1 the memory. Fills in `bus`.
 * A map whose bytes do not begin with a page is taken from where the kernel says that they do (maps/mapN/offset).
 * Returns 0, or -1 with `problem` filled in, and nothing left open. */
int sta_hw_linux_uio(struct sta_hw_linux *linux_bus, struct sta_hw_bus *bus, const char *name,
                     struct sta_hw_linux_problem *problem);

/* Registers and memory at physical addresses, multiples of a page; no interrupt. As root, and where the kernel lets
 * /dev/mem reach them. The accelerator's own bus has the memory at the same address. */
int sta_hw_linux_devmem(struct sta_hw_linux *linux_bus, struct sta_hw_bus *bus, uint64_t registers, uint64_t memory,
                        uint32_t memory_bytes, struct sta_hw_linux_problem *problem);

void sta_hw_linux_close(struct sta_hw_linux *linux_bus);

#ifdef __cplusplus
}
#endif

#endif
