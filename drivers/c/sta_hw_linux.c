/* UIO and /dev/mem; sta_hw_linux.h says how. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "sta_hw_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REGISTER_BYTES = 4096, LONGEST_PATH = 128 };

static int failed(struct sta_hw_linux_problem *problem, const char *doing, int error) {
    if (problem) {
        problem->doing = doing;
        problem->error = error;
    }
    return -1;
}

/* A number that the kernel tells of a UIO device's map, such as its size. */
static int map_number(const char *name, int map, const char *what, uint64_t *number) {
    char path[LONGEST_PATH], text[32], *end;
    ssize_t count;
    int file;
    if ((size_t)snprintf(path, sizeof path, "/sys/class/uio/%s/maps/map%d/%s", name, map, what) >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    file = open(path, O_RDONLY);
    if (file < 0)
        return -1;
    count = read(file, text, sizeof text - 1);
    close(file);
    text[count > 0 ? count : 0] = '\0';
    *number = strtoull(text, &end, 0);
    if (end == text) {
        errno = EINVAL;
        return -1;
    }
    return 0;
}

/* A UIO device's interrupt is off once it came; a write of 1 lets the next one come. */
static int wait_uio(void *context, uint32_t milliseconds) {
    const struct sta_hw_linux *linux_bus = context;
    struct pollfd waited = {0, POLLIN, 0};
    const uint32_t one = 1;
    uint32_t count;
    int ready;
    if (write(linux_bus->file, &one, sizeof one) != (ssize_t)sizeof one)
        return -errno;
    waited.fd = linux_bus->file;
    ready = poll(&waited, 1, milliseconds > 0x7FFFFFFFu ? -1 : (int)milliseconds);
    if (ready < 0)
        return errno == EINTR ? STA_HW_RAISED : -errno; /* a signal: the driver looks at the status, and comes again */
    if (!ready)
        return STA_HW_TIMED_OUT;
    return read(linux_bus->file, &count, sizeof count) == (ssize_t)sizeof count ? STA_HW_RAISED : -EIO;
}

/* Where in its first page a map's own bytes begin, and how many there are: the kernel maps, and counts, whole pages. */
static int map_extent(const char *name, int map, uint64_t *offset, uint64_t *size) {
    if (map_number(name, map, "size", size))
        return -1;
    *offset = 0; /* a kernel that does not say it maps nothing that does not begin with a page */
    if (map_number(name, map, "offset", offset) && errno != ENOENT)
        return -1;
    if (*offset >= *size) {
        errno = EINVAL;
        return -1;
    }
    return 0;
}

static void *map(int file, uint64_t offset, size_t bytes) {
    void *const found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)offset);
    return found == MAP_FAILED ? NULL : found;
}

static void prepare(struct sta_hw_linux *linux_bus) {
    static const struct sta_hw_mapped none = {NULL, NULL, NULL, NULL, NULL, NULL, 0};
    linux_bus->mapped = none;
    linux_bus->file = -1;
    linux_bus->register_map = linux_bus->memory_map = NULL;
    linux_bus->register_bytes = linux_bus->memory_bytes = 0;
}

/* The bus on both maps, whose own bytes begin at these offsets. */
static void complete(struct sta_hw_linux *linux_bus, struct sta_hw_bus *bus, uint64_t address, size_t registers,
                     size_t memory) {
    linux_bus->mapped.registers = (volatile uint32_t *)(void *)((char *)linux_bus->register_map + registers);
    linux_bus->mapped.memory = (volatile uint8_t *)linux_bus->memory_map + memory;
    sta_hw_mapped_bus(bus, &linux_bus->mapped, address + memory, (uint32_t)(linux_bus->memory_bytes - memory));
}

static int give_up(struct sta_hw_linux *linux_bus, struct sta_hw_linux_problem *problem, const char *doing) {
    const int error = errno;
    sta_hw_linux_close(linux_bus);
    return failed(problem, doing, error);
}

int sta_hw_linux_uio(struct sta_hw_linux *linux_bus, struct sta_hw_bus *bus, const char *name,
                     struct sta_hw_linux_problem *problem) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    char path[LONGEST_PATH];
    uint64_t address, offset, size, register_offset, register_size;
    if (!linux_bus || !bus || !name)
        return failed(problem, "looking for what to open", EINVAL);
    prepare(linux_bus);
    if (map_extent(name, 0, &register_offset, &register_size))
        return failed(problem, "looking for the device's map 0, its registers", errno);
    if (map_number(name, 1, "addr", &address) || map_extent(name, 1, &offset, &size))
        return failed(problem, "looking for the device's map 1, its memory", errno);
    snprintf(path, sizeof path, "/dev/%s", name);
    linux_bus->file = open(path, O_RDWR | O_CLOEXEC);
    if (linux_bus->file < 0)
        return give_up(linux_bus, problem, "opening the UIO device");
    linux_bus->register_bytes = (size_t)register_size;
    linux_bus->memory_bytes = (size_t)(size > 0xFFFFF000u ? 0xFFFFF000u : size);
    /* UIO's own rule: map N is at the offset of N pages, whatever its size. */
    linux_bus->register_map = map(linux_bus->file, 0, linux_bus->register_bytes);
    if (!linux_bus->register_map)
        return give_up(linux_bus, problem, "mapping the registers");
    linux_bus->memory_map = map(linux_bus->file, page, linux_bus->memory_bytes);
    if (!linux_bus->memory_map)
        return give_up(linux_bus, problem, "mapping the memory");
    complete(linux_bus, bus, address, (size_t)register_offset, (size_t)offset);
    bus->context = linux_bus; /* begins with `mapped`, which is what the other functions take */
    bus->wait = wait_uio;
    return 0;
}

int sta_hw_linux_devmem(struct sta_hw_linux *linux_bus, struct sta_hw_bus *bus, uint64_t registers, uint64_t memory,
                        uint32_t memory_bytes, struct sta_hw_linux_problem *problem) {
    int file;
    if (!linux_bus || !bus)
        return failed(problem, "looking for what to open", EINVAL);
    prepare(linux_bus);
    file = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
    if (file < 0)
        return failed(problem, "opening /dev/mem", errno);
    linux_bus->register_bytes = REGISTER_BYTES;
    linux_bus->memory_bytes = memory_bytes;
    linux_bus->register_map = map(file, registers, REGISTER_BYTES);
    if (linux_bus->register_map)
        linux_bus->memory_map = map(file, memory, memory_bytes);
    if (!linux_bus->memory_map) {
        give_up(linux_bus, problem, linux_bus->register_map ? "mapping the memory" : "mapping the registers");
        close(file);
        return -1;
    }
    close(file); /* maps stay */
    complete(linux_bus, bus, memory, 0, 0);
    return 0;
}

void sta_hw_linux_close(struct sta_hw_linux *linux_bus) {
    if (linux_bus->register_map)
        munmap(linux_bus->register_map, linux_bus->register_bytes);
    if (linux_bus->memory_map)
        munmap(linux_bus->memory_map, linux_bus->memory_bytes);
    if (linux_bus->file >= 0)
        close(linux_bus->file);
    prepare(linux_bus);
}
