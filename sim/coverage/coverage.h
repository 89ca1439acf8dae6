// Points of coverage that a model counts, written to a file of the folder STA_HW_COVERAGE when the model ends: with its
// handle, or with the program.

#pragma once

#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>

#include "verilated.h"
#include "verilated_cov.h"

namespace {

class Coverage {
public:
    explicit Coverage(VerilatedContext* context) : context_(context) { all().insert(this); }
    ~Coverage() {
        all().erase(this);
        write();
    }

private:
    // Those of models that nobody closed are written when the library is unloaded.
    struct Rest : std::set<Coverage*> {
        ~Rest() { for (Coverage* each : *this) each->write(); }
    };
    static Rest& all() {
        static Rest rest;
        return rest;
    }
    void write() {
        const char* folder = std::getenv("STA_HW_COVERAGE");
        if (!folder) return;
        std::string name = std::string(folder) + "/" + std::to_string(getpid()) + "-XXXXXX";
        const int file = mkstemp(&name[0]);
        if (file < 0) return;
        close(file);
        context_->coveragep()->write(name.c_str());
    }
    VerilatedContext* context_;
};

// A model whose points are written before its counters go.
template <typename Verilated>
struct Covered : Verilated {
    explicit Covered(VerilatedContext* context) : Verilated(context), coverage(context) {}
    Coverage coverage;
};

}  // namespace
