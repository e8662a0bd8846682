#include "quantize/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/block.h"
#include "model/divergence.h"
#include "quantize/calibration.h"

namespace quern {
namespace {

constexpr int64_t kPositions = 256;  // at most, at which predictions are compared
constexpr int64_t kHeadRows = 16384;

double squared_distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}

class Measurement {
 public:
  explicit Measurement(const SensitivityJob& job)
      : job_(job),
        weights_(job.reader.weights()),
        calibration_(job.backend, job.pool, job.config, job.length, job.tick) {
    calibration_.embed(weights_, job.ids);
    stream_ = std::move(calibration_.stream());
    std::vector<float> last = stream_;
    carry_on(last, 0);
    reference_hidden_ = positions_of(last);
    reference_ = logits(reference_hidden_);
  }

  std::vector<Sensitivity> run() {
    for (int64_t layer = 0; layer < job_.config.layers; ++layer) {
      if (job_.on_layer) job_.on_layer(layer);
      measure_block(layer);
    }
    if (job_.specs.back().role == Role::Head) {
      if (job_.on_layer) job_.on_layer(job_.config.layers);
      measure_head(job_.specs.back());
    }
    return std::move(found_);
  }

 private:
  void carry_on(std::vector<float>& stream, int64_t from) {
    for (int64_t layer = from; layer < job_.config.layers; ++layer) {
      calibration_.forward(weights_.layers[static_cast<size_t>(layer)], layer, stream);
    }
  }

  // Some tokens of a stream behind the last block, normed: [positions, hidden].
  std::vector<float> positions_of(std::span<const float> stream) {
    const auto hidden = static_cast<size_t>(job_.config.hidden);
    const auto tokens = static_cast<int64_t>(stream.size() / hidden);
    const int64_t count = std::min(kPositions, tokens);
    std::vector<float> picked;
    for (int64_t i = 0; i < count; ++i) {
      const auto token = static_cast<size_t>((2 * i + 1) * tokens / (2 * count));
      const auto row = stream.subspan(token * hidden, hidden);
      picked.insert(picked.end(), row.begin(), row.end());
    }
    return calibration_.normed(picked, weights_.final_norm);
  }

  // The head's rows from `first_row` on, of which `head` holds the weights, on some hidden states.
  void logits(std::span<const float> hidden, const Linear& head, int64_t first_row,
              std::vector<float>& out) {
    const int64_t width = job_.config.hidden, vocab = weights_.lm_head.weight.rows;
    const auto rows = static_cast<int64_t>(hidden.size()) / width;
    out.resize(static_cast<size_t>(rows * vocab));
    const MutRows all = {out.data(), rows, vocab, vocab};
    apply_linear(job_.backend, {hidden.data(), rows, width, width},
                 {{&head, all.columns(first_row, head.weight.rows)}}, {});
  }
  std::vector<float> logits(std::span<const float> hidden) {
    std::vector<float> out;
    logits(hidden, weights_.lm_head, 0, out);
    return out;
  }

  // Mean over the positions, from what the model as it is predicts.
  double divergence(std::span<const float> other) const {
    const auto vocab = static_cast<size_t>(weights_.lm_head.weight.rows);
    const size_t rows = other.size() / vocab;
    double sum = 0;
    for (size_t r = 0; r < rows; ++r) {
      sum += kl_divergence(std::span(reference_).subspan(r * vocab, vocab),
                           other.subspan(r * vocab, vocab));
    }
    return sum / static_cast<double>(rows);
  }

  std::vector<float> rounded(std::span<const float> values, int64_t rows, const BitChoice& choice,
                             const std::string& name) {
    QuantizeSettings settings = job_.settings;
    settings.bits = choice.bits;
    settings.group = choice.group;
    return round_to_nearest(job_.pool, values, rows, settings, name).dequantized();
  }

  // Puts floats in a matrix's place.
  void put(const TensorSpec& spec, const std::vector<float>& values) {
    const Weight whole = {.format = WeightFormat::F32,
                          .rows = spec.shape[0],
                          .cols = spec.shape[1],
                          .data = reinterpret_cast<const std::byte*>(values.data())};
    for (const LinearSlice& slice : linears_of(weights_, spec, job_.config)) {
      slice.linear->weight = whole.slice(slice.first_row, slice.rows);
    }
  }

  Sensitivity begin(const TensorSpec& spec) const {
    return {.module = spec.module,
            .weights = spec.shape.count(),
            .choices = bit_choices(spec.shape[1], job_.settings.group)};
  }

  void measure_block(int64_t index) {
    Layer& live = weights_.layers[static_cast<size_t>(index)];
    const Layer original = live;
    std::vector<float> out = stream_;
    calibration_.forward(live, index, out);

    std::vector<const TensorSpec*> matrices;
    std::vector<std::vector<float>> values, least;
    for (const TensorSpec& spec : job_.specs) {
      if (spec.layer != index) continue;
      matrices.push_back(&spec);
      values.push_back(job_.reader.all(spec));
      const BitChoice fewest = bit_choices(spec.shape[1], job_.settings.group)[0];
      least.push_back(rounded(values.back(), spec.shape[0], fewest, spec.module));
    }
    for (size_t i = 0; i < matrices.size(); ++i) put(*matrices[i], least[i]);
    std::vector<float> changed = stream_;
    calibration_.forward(live, index, changed);
    live = original;
    const double error = squared_distance(changed, out);
    carry_on(changed, index + 1);
    const double cost = divergence(logits(positions_of(changed)));

    for (size_t i = 0; i < matrices.size(); ++i) {
      const TensorSpec& spec = *matrices[i];
      Sensitivity found = begin(spec);
      for (const BitChoice& choice : found.choices) {
        const std::vector<float> back = rounded(values[i], spec.shape[0], choice, spec.module);
        put(spec, back);
        changed = stream_;
        calibration_.forward(live, index, changed);
        live = original;
        found.cost.push_back(error > 0 ? cost * squared_distance(changed, out) / error : 0);
      }
      found_.push_back(std::move(found));
      job_.reader.forget(spec);
    }
    stream_ = std::move(out);
  }

  void measure_head(const TensorSpec& spec) {
    Sensitivity found = begin(spec);
    std::vector<float> changed;
    for (const BitChoice& choice : found.choices) {
      for (int64_t row = 0; row < spec.shape[0]; row += kHeadRows) {
        const int64_t count = std::min(kHeadRows, spec.shape[0] - row);
        const std::vector<float> back =
            rounded(job_.reader.rows(spec, row, count), count, choice, spec.module);
        Linear head = weights_.lm_head;
        head.weight = {.format = WeightFormat::F32,
                       .rows = count,
                       .cols = spec.shape[1],
                       .data = reinterpret_cast<const std::byte*>(back.data())};
        if (!head.bias.empty()) {
          head.bias = head.bias.subspan(static_cast<size_t>(row), static_cast<size_t>(count));
        }
        logits(reference_hidden_, head, row, changed);
      }
      found.cost.push_back(divergence(changed));
    }
    found_.push_back(std::move(found));
  }

  const SensitivityJob& job_;
  Weights weights_;  // whose blocks' matrices are exchanged for rounded ones
  Calibration calibration_;
  std::vector<float> stream_;            // into the block at work: [tokens, hidden]
  std::vector<float> reference_hidden_;  // [positions, hidden]
  std::vector<float> reference_;         // [positions, vocab]
  std::vector<Sensitivity> found_;
};

}  // namespace

std::vector<Sensitivity> measure_sensitivity(const SensitivityJob& job) {
  return Measurement(job).run();
}

std::vector<BitChoice> bit_choices(int64_t cols, int64_t group) {
  constexpr int64_t kFast = 32;
  std::vector<BitChoice> choices;
  BitChoice eight = {8, group};
  for (int64_t g = kFast; g <= std::min(2 * group, cols); g += kFast) {
    if (cols % g != 0) continue;
    choices.insert(choices.begin(), {4, g});
    if (choices.size() == 1 || g <= group) eight.group = g;
  }
  if (choices.empty()) choices.push_back({4, group});
  choices.push_back(eight);
  return choices;
}

std::vector<BitChoice> choose_bits(std::span<const Sensitivity> matrices, double target) {
  const auto bits = [](const Sensitivity& matrix, size_t choice) {
    return static_cast<double>(matrix.weights) * matrix.choices[choice].bits_per_weight();
  };
  double all = 0, fewest = 0;
  for (const Sensitivity& matrix : matrices) {
    all += static_cast<double>(matrix.weights);
    fewest += bits(matrix, 0);
  }
  double left = all * (target + 1e-6) - fewest;
  if (left < 0) {
    throw Error(Kind::Misused, fmt::format("--target-bits is {:g}", target),
                fmt::format("this model takes {:.4g} bits a weight at least, with the scales of "
                            "groups of {} inputs; --group may make them larger",
                            fewest / all, matrices[0].choices[0].group));
  }
  std::vector<size_t> chosen(matrices.size());
  for (;;) {
    double best = 0;
    size_t matrix = 0, choice = 0;
    for (size_t m = 0; m < matrices.size(); ++m) {
      for (size_t c = chosen[m] + 1; c < matrices[m].choices.size(); ++c) {
        const double more = bits(matrices[m], c) - bits(matrices[m], chosen[m]);
        const double saved = matrices[m].cost[chosen[m]] - matrices[m].cost[c];
        if (more > left || saved / more <= best) continue;
        best = saved / more;
        matrix = m;
        choice = c;
      }
    }
    if (best <= 0) break;
    left -= bits(matrices[matrix], choice) - bits(matrices[matrix], chosen[matrix]);
    chosen[matrix] = choice;
  }
  std::vector<BitChoice> out;
  for (size_t m = 0; m < matrices.size(); ++m) out.push_back(matrices[m].choices[chosen[m]]);
  return out;
}

}  // namespace quern
