#include "train/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace quern {

Decay parse_decay(std::string_view name) {
  if (name == "matrices") return Decay::Matrices;
  if (name == "hf") return Decay::HuggingFace;
  if (name == "all") return Decay::All;
  throw Error(Kind::Misused, fmt::format("the weight decay is '{}'", printable(name, 40)),
              "expected matrices, hf or all");
}

bool decays(Decay rule, const TensorSpec& spec, Family family) noexcept {
  switch (rule) {
    case Decay::Matrices:
      return spec.decays();
    case Decay::All:
      return true;
    case Decay::HuggingFace:
      break;
  }
  // The Trainer leaves out biases, and norms where it recognizes their class: not those of Qwen.
  return spec.role != Role::Bias && (spec.role != Role::Norm || family == Family::Qwen);
}

Optimizer::Optimizer(Backend& backend, const Config& config, const OptimizerOptions& options)
    : Optimizer(backend, config, options, tensor_specs(config)) {}

Optimizer::Optimizer(Backend& backend, const Config& config, const OptimizerOptions& options,
                     const std::vector<TensorSpec>& specs)
    : run_(backend),
      family_(config.family),
      options_(options),
      first_(backend, config, specs),
      second_(backend, config, specs) {}

GradientNorm Optimizer::measure(const Parameters& gradients) {
  const double norm = std::sqrt(run_.squared_norm(gradients.all()));
  return {norm, options_.clip > 0 ? std::min(1.0, options_.clip / (norm + 1e-6)) : 1.0};
}

void Optimizer::step(Parameters& parameters, const Parameters& gradients, double learning_rate,
                     double gradient_scale) {
  ++steps_;
  const auto& specs = parameters.specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    const bool shrinks = decays(options_.decay, specs[i], family_);
    run_.adamw(parameters.tensor(i), gradients.tensor(i), first_.tensor(i), second_.tensor(i),
               {.learning_rate = learning_rate,
                .beta_1 = options_.beta_1,
                .beta_2 = options_.beta_2,
                .epsilon = options_.epsilon,
                .weight_decay = shrinks ? options_.weight_decay : 0,
                .gradient_scale = gradient_scale,
                .step = steps_});
  }
}

}  // namespace quern
