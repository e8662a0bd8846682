// Checkpoints of a training run, in its folder:
//   step-00000500/   a Hugging Face checkpoint (config.json, model.safetensors in float32,
//   tokenizer,
//                    generation_config.json), optimizer.safetensors (moments), training.json (where
//                    the run stands), manifest.json (every file's size and SHA-256)
//                    Of low-rank tuning, instead of the model: an adapter in PEFT's layout
//                    (adapter_config.json, adapter_model.safetensors) and base.json, which says
//                    what it was tuned over.
//   latest           a link to the newest
//   lock             held by the process that trains
// A checkpoint is written under a temporary name, synced, and renamed: what carries a name is
// whole. Reading trusts nothing but a manifest whose files all agree with it.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <thread>

#include "core/file.h"
#include "data/loader.h"
#include "train/gradient_guard.h"
#include "train/run_config.h"

namespace quern {

// Where a run stands, beside its parameters and moments. The numbers are all there is: random
// draws are functions of the seed and of these.
struct RunState {
  int64_t step = 0;  // done
  int64_t tokens = 0;
  int64_t optimizer_steps = 0;  // fewer than `step` where steps were skipped
  LoaderPosition position;
  GradientGuard::State guard;
};

// One process at a time may train into a folder. Throws Failed naming the other one's id.
class RunLock {
 public:
  explicit RunLock(const fs::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

class CheckpointSaver {
 public:
  // `files` puts what does not change into a checkpoint's folder: tokenizer, generation config.
  CheckpointSaver(fs::path run, const RunConfig& config, Backend& backend,
                  std::function<void(const fs::path&)> files);
  ~CheckpointSaver();

  // Writes the checkpoint of state.step, in the background if the config says so: then this waits
  // for the one before and copies what it needs, and training may go on. An error of a write in the
  // background is thrown by the next call.
  void save(const RunState& state, Parameters& parameters, Optimizer& optimizer);
  void wait();

 private:
  struct Job;
  void write(const Job& job) const;
  void prune() const;

  fs::path run_;
  const RunConfig& config_;
  Backend& backend_;
  std::function<void(const fs::path&)> files_;
  std::string base_hash_;  // of low-rank tuning
  std::unique_ptr<Job> job_;
  std::thread writer_;
  std::exception_ptr failure_;
};

// Steps that have a checkpoint by name, rising. Whether it is whole is seen when it is read.
std::vector<int64_t> checkpoint_steps(const fs::path& run);
fs::path checkpoint_folder(const fs::path& run, int64_t step);

// Throws BadInput naming the file that is missing or differs from the manifest.
void check_manifest(const fs::path& checkpoint);

// Reads the newest checkpoint that is whole; one that is not is passed over with a warning. Throws
// BadInput where there is none, or where it belongs to another model, tokenizer or data.
RunState resume(const fs::path& run, const RunConfig& config, Parameters& parameters,
                Optimizer& optimizer);

}  // namespace quern
