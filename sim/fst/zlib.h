// The functions of zlib that Verilator's FST writer calls, so that waveforms need no package of the system.
//
// A stream as in RFC 1950 and 1951 whose blocks are stored, not compressed: the writer then keeps its data as it is.
#ifndef STA_HW_ZLIB_H
#define STA_HW_ZLIB_H

#include <cstdint>
#include <cstring>

typedef unsigned char Bytef;
typedef unsigned long uLong;
typedef unsigned long uLongf;
enum { Z_OK = 0, Z_BUF_ERROR = -5 };

static inline uLong compressBound(uLong size) { return size + 5 * (size / 65535 + 1) + 6; }

static inline int compress2(Bytef* target, uLongf* capacity, const Bytef* source, uLong size, int) {
    if (*capacity < compressBound(size)) return Z_BUF_ERROR;
    Bytef* out = target;
    *out++ = 0x78;  // deflate, a window of 32 KiB
    *out++ = 0x01;
    uint32_t a = 1, b = 0;  // Adler-32
    uLong at = 0;
    do {
        const uLong count = size - at < 65535 ? size - at : 65535;
        *out++ = at + count == size;  // the last block
        *out++ = count & 255;
        *out++ = count >> 8;
        *out++ = ~count & 255;
        *out++ = (~count >> 8) & 255;
        if (count) std::memcpy(out, source + at, count);
        for (uLong i = at; i < at + count; i++) {
            a = (a + source[i]) % 65521;
            b = (b + a) % 65521;
        }
        out += count;
        at += count;
    } while (at < size);
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = ((b << 16 | a) >> shift) & 255;
    *capacity = out - target;
    return Z_OK;
}

#endif
