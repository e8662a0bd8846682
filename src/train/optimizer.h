// AdamW over a model's parameters, with the memo's settings as defaults.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "compute/backend.h"
#include "model/parameters.h"

namespace quern {

// Which tensors weight decay shrinks: matrices alone (the memo); what the Trainer of transformers
// decays (all but biases; of the newer families not the norms either); or everything.
enum class Decay : uint8_t { Matrices, HuggingFace, All };

// "matrices", "hf" or "all". Throws Misused for another word.
Decay parse_decay(std::string_view name);
bool decays(Decay rule, const TensorSpec& spec, Family family) noexcept;

struct OptimizerOptions {
  double beta_1 = 0.9, beta_2 = 0.95;
  double epsilon = 1e-6;
  double weight_decay = 0.1;
  Decay decay = Decay::Matrices;
  double clip = 1.0;  // largest norm of all gradients together; 0: no limit
};

// The norm of all gradients, and what clipping multiplies them by: min(1, clip / (norm + 1e-6)).
struct GradientNorm {
  double norm;
  double scale;
};

class Optimizer {
 public:
  // Of the tensors that `specs` lists; without, of every tensor of the model.
  Optimizer(Backend& backend, const Config& config, const OptimizerOptions& options);
  Optimizer(Backend& backend, const Config& config, const OptimizerOptions& options,
            const std::vector<TensorSpec>& specs);

  GradientNorm measure(const Parameters& gradients);

  // One step with gradients that are multiplied by `gradient_scale` as they are read.
  void step(Parameters& parameters, const Parameters& gradients, double learning_rate,
            double gradient_scale);

  // Of several ranks each steps its share of the parameters and keeps their moments alone (ZeRO-1,
  // Rajbhandari et al. 2020): elements [begin, end) of Parameters::all().
  void keep(size_t begin, size_t end) noexcept {
    begin_ = begin;
    end_ = end;
  }
  // Gives back the memory of moments beyond the share, which read as zeros then.
  void release_others();

  int64_t steps() const noexcept { return steps_; }

  // The moments, and the count of steps that corrects their bias: what a checkpoint keeps.
  Parameters& first() noexcept { return first_; }
  Parameters& second() noexcept { return second_; }
  void set_steps(int64_t steps) noexcept { steps_ = steps; }

 private:
  Backend& run_;
  Family family_;
  OptimizerOptions options_;
  Parameters first_, second_;  // moments
  size_t begin_ = 0, end_ = SIZE_MAX;
  int64_t steps_ = 0;
};

}  // namespace quern
