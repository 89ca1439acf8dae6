// A board with its serial line at the host's end: bytes in, bytes out. Called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "model.h"

struct Board {
    Model model;
    int divisor;
    std::deque<uint8_t> to_board;
    std::vector<uint8_t> to_host;
    int sending = 0;       // bits left of the byte on rx, start and stop included
    int send_wait = 0;
    uint16_t send_bits = 0;
    int receiving = -1;    // bits seen of the byte on tx; -1: idle
    int receive_wait = 0;
    uint8_t received = 0;
    int64_t cycles = 0;

    void step() {
        if (send_wait == 0) {
            if (sending == 0 && !to_board.empty()) {
                send_bits = uint16_t(to_board.front()) << 1 | 0x200;
                to_board.pop_front();
                sending = 10;
            }
            if (sending) {
                model.rx = send_bits & 1;
                send_bits >>= 1;
                sending--;
                send_wait = divisor - 1;
            } else {
                model.rx = 1;
            }
        } else {
            send_wait--;
        }
        for (int i = 0; i < clocks; i++) {
            model.clk = 0;
            model.eval();
            model.clk = 1;
            model.eval();
        }
        cycles++;
        if (receiving < 0) {
            if (!model.tx) {
                receiving = 0;
                receive_wait = divisor + divisor / 2 - 1;
            }
        } else if (--receive_wait == 0) {
            if (receiving == 8) {
                if (model.tx) to_host.push_back(received);
                receiving = -1;
            } else {
                received = received >> 1 | (model.tx ? 0x80 : 0);
                receiving++;
                receive_wait = divisor;
            }
        }
    }
};

extern "C" {

Board* board_open(int divisor) {
    Board* board = new Board;
    board->divisor = divisor;
    board->model.rx = 1;
    board->model.rst = 1;
    for (int i = 0; i < 8; i++) board->step();
    board->model.rst = 0;
    return board;
}
void board_close(Board* board) { delete board; }
void board_send(Board* board, const uint8_t* bytes, int64_t count) {
    board->to_board.insert(board->to_board.end(), bytes, bytes + count);
}
// Runs until `count` bytes have come or `most` cycles are over; gives what has come, and forgets it.
int64_t board_receive(Board* board, uint8_t* bytes, int64_t count, int64_t most) {
    for (int64_t i = 0; i < most && int64_t(board->to_host.size()) < count; i++) board->step();
    int64_t found = std::min<int64_t>(count, board->to_host.size());
    std::copy(board->to_host.begin(), board->to_host.begin() + found, bytes);
    board->to_host.erase(board->to_host.begin(), board->to_host.begin() + found);
    return found;
}
void board_run(Board* board, int64_t cycles) {
    for (int64_t i = 0; i < cycles; i++) board->step();
}
int64_t board_pending(Board* board) { return board->to_board.size() + (board->sending != 0); }
int64_t board_cycles(Board* board) { return board->cycles; }
int64_t board_violations(Board* board) { return board->model.violations; }
#ifdef CHIP_WORDS
// The memory chip's contents, past its pins: `count` times 16 bytes from word `first` on, put there or taken from there.
void board_put(Board* board, int64_t first, const uint8_t* bytes, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        VlWide<4> data;
        std::memcpy(data.data(), bytes + 16 * i, 16);
        board->model.CHIP_WORDS.at(first + i) = data;
    }
}
void board_get(Board* board, int64_t first, uint8_t* bytes, int64_t count) {
    for (int64_t i = 0; i < count; i++) std::memcpy(bytes + 16 * i, board->model.CHIP_WORDS.at(first + i).data(), 16);
}
#endif
int board_lamps(Board* board) { return board->model.ready | board->model.busy << 1 | board->model.failed << 2; }
}
