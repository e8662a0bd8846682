#include "train/optimizer.h"

#include <fmt/format.h>
#include <sys/mman.h>

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
    const auto place = static_cast<size_t>(parameters.tensor(i).data() - parameters.all().data());
    const size_t size = parameters.tensor(i).size();
    const size_t from = std::clamp(begin_, place, place + size) - place;
    const size_t count = std::clamp(end_, place, place + size) - place - from;
    if (count == 0) continue;
    run_.adamw(parameters.tensor(i).subspan(from, count), gradients.tensor(i).subspan(from, count),
               first_.tensor(i).subspan(from, count), second_.tensor(i).subspan(from, count),
               {.learning_rate = learning_rate,
                .beta_1 = options_.beta_1,
                .beta_2 = options_.beta_2,
                .epsilon = options_.epsilon,
                .weight_decay = shrinks ? options_.weight_decay : 0,
                .gradient_scale = gradient_scale,
                .step = steps_});
  }
}

void Optimizer::release_others() {
  constexpr uintptr_t kPage = 4096;
  const auto release = [](std::span<float> values) {
    const auto begin = (reinterpret_cast<uintptr_t>(values.data()) + kPage - 1) / kPage * kPage;
    const auto end = reinterpret_cast<uintptr_t>(values.data() + values.size()) / kPage * kPage;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  };
  for (Parameters* moments : {&first_, &second_}) {
    const std::span<float> all = moments->all();
    release(all.first(std::min(begin_, all.size())));
    if (end_ < all.size()) release(all.subspan(end_));
  }
}

}  // namespace quern
