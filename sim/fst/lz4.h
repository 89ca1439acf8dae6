// The two functions of LZ4 that Verilator's FST writer calls, so that waveforms need no package of the system.
//
// A block as in LZ4's description of its format (lz4_Block_format.md): tokens of literals and of matches, greedy,
// with the last five bytes literal and no match in the last twelve.
#ifndef STA_HW_LZ4_H
#define STA_HW_LZ4_H

#include <cstdint>
#include <cstring>
#include <vector>

static inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

static inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    const auto* in = reinterpret_cast<const uint8_t*>(source);
    auto* out = reinterpret_cast<uint8_t*>(target);
    const auto* begin = out;
    const auto put_length = [&out](int length) {
        for (; length >= 255; length -= 255) *out++ = 255;
        *out++ = static_cast<uint8_t>(length);
    };
    // `match` 0 ends the block: literals alone.
    const auto put = [&](const uint8_t* literals, int count, int offset, int match) {
        const int more = match ? match - 4 : 0;
        *out++ = static_cast<uint8_t>((count < 15 ? count : 15) << 4 | (more < 15 ? more : 15));
        if (count >= 15) put_length(count - 15);
        if (count) std::memcpy(out, literals, count);
        out += count;
        if (!match) return;
        *out++ = offset & 255;
        *out++ = offset >> 8;
        if (more >= 15) put_length(more - 15);
    };
    std::vector<int> seen(1 << 14, -1);  // where a hash of four bytes was last
    int at = 0, anchor = 0;
    while (at < size - 12) {
        uint32_t word;
        std::memcpy(&word, in + at, 4);
        int& last = seen[word * 2654435761u >> 18];
        const int found = last;
        last = at;
        if (found < 0 || at - found > 65535 || std::memcmp(in + found, in + at, 4) != 0) {
            at++;
            continue;
        }
        int match = 4;
        while (at + match < size - 5 && in[found + match] == in[at + match]) match++;
        put(in + anchor, at - anchor, at - found, match);
        at += match;
        anchor = at;
    }
    put(in + anchor, size - anchor, 0, 0);
    return static_cast<int>(out - begin);
}

#endif
