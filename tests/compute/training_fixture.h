// The training backend of one instruction set, for the tests of its operations.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"
#include "support/isa.h"
#include "support/support.h"

namespace quern {

class Training : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (!cpu::supported(GetParam())) {
      GTEST_SKIP() << "skipped: this CPU lacks " << cpu::name(GetParam());
    }
    backend_ = std::make_unique<CpuTrainingBackend>(pool_, GetParam());
  }
  CpuTrainingBackend& run() { return *backend_; }

  ThreadPool pool_{2};
  std::unique_ptr<CpuTrainingBackend> backend_;
};

inline MutRows rows_in(std::vector<float>& x, int64_t cols) {
  return {x.data(), static_cast<int64_t>(x.size()) / cols, cols, cols};
}

}  // namespace quern
