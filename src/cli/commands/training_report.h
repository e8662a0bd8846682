// What a training run shows and keeps: the progress line, validation and samples on standard
// output; metrics.csv, validation.csv and TensorBoard's event files in the run's folder.
#pragma once

#include <fstream>
#include <map>
#include <memory>
#include <optional>

#include "compute/cpu/cpu_training_backend.h"
#include "core/progress.h"
#include "formats/tensorboard.h"
#include "text/tokenizer.h"
#include "train/pretrain.h"

namespace quern::cli {

class TrainingReport final : public RunObserver {
 public:
  TrainingReport(const RunConfig& config, const Tokenizer& tokenizer, CpuTrainingBackend& backend,
                 fs::path run);

  void began(const RunState& state) override;
  void stepped(const StepReport& report) override;
  void validated(const ValidationReport& report) override;
  void may_sample(int64_t step, const Weights& weights) override;
  bool wants_stop() override;

  void finish(bool done);

 private:
  void say(const std::string& line);

  const RunConfig& config_;
  const Tokenizer& tokenizer_;
  CpuTrainingBackend& backend_;
  fs::path run_;
  double flops_per_token_;
  double peak_ = 0;  // operations a second
  std::unique_ptr<Progress> progress_;
  std::string note_;
  std::optional<EventFile> events_;
  double seconds_ = 0;  // of training, over all resumptions
};

}  // namespace quern::cli
