#include "evaluate/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/divergence.h"

namespace quern {
namespace {

constexpr int64_t kChunk = 512;
constexpr int64_t kLogitRows = 32;

// A model at work on one window after another.
struct Side {
  Side(Model& m, int64_t window)
      : model(m),
        cache(m.backend(), m.config(), m.engine_options().kv_type, window, 1),
        runner(m.network(),
               kv_policy(m.engine_options().kv_type).chunked ? std::min(kChunk, window) : window,
               kLogitRows) {}

  Model& model;
  KvCache cache;
  Runner runner;
};

// Compares the residual streams of two runners after each block. Some rows of a call are kept: all
// of a large model's would be a quarter of a gigabyte.
class StreamErrors {
 public:
  StreamErrors(Side& a, Side& b) {
    const Config &first = a.model.config(), &second = b.model.config();
    if (first.layers != second.layers || first.hidden != second.hidden) return;
    kept_.resize(static_cast<size_t>(first.layers));
    lost_.resize(kept_.size());
    all_.resize(kept_.size());
    watch(a, [this](size_t block, ConstRows rows) { keep(block, rows); });
    watch(b, [this](size_t block, ConstRows rows) { compare_with_kept(block, rows); });
  }

  std::vector<double> errors() const {
    std::vector<double> out;
    for (size_t i = 0; i < all_.size(); ++i) out.push_back(all_[i] > 0 ? lost_[i] / all_[i] : 0);
    return out;
  }

 private:
  static constexpr int64_t kRows = 64;

  template <class Take>
  static void watch(Side& side, Take take) {
    side.runner.set_probe([take, block = size_t{0}](std::string_view name, ConstRows rows) mutable {
      if (name == "embed") block = 0;
      if (name.starts_with("block") && name.ends_with(".out")) take(block++, rows);
    });
  }

  template <class Visit>
  static void some_rows(ConstRows rows, Visit visit) {
    const int64_t step = (rows.rows + kRows - 1) / kRows;
    for (int64_t r = 0; r < rows.rows; r += step) visit(std::span(rows.row(r), size_t(rows.cols)));
  }

  void keep(size_t block, ConstRows rows) {
    kept_[block].clear();
    some_rows(rows, [&](std::span<const float> row) {
      kept_[block].insert(kept_[block].end(), row.begin(), row.end());
    });
  }

  void compare_with_kept(size_t block, ConstRows rows) {
    const float* kept = kept_[block].data();
    some_rows(rows, [&](std::span<const float> row) {
      for (const float value : row) {
        const double a = *kept++, d = static_cast<double>(value) - a;
        lost_[block] += d * d;
        all_[block] += a * a;
      }
    });
  }

  std::vector<std::vector<float>> kept_;  // of A's last call, by block
  std::vector<double> lost_, all_;
};

}  // namespace

Comparison compare(Model& a, Model& b, std::span<const TokenId> ids, int64_t length,
                   const std::function<void(int64_t)>& on_progress) {
  if (a.config().output_vocab != b.config().output_vocab) {
    throw_bad_input(
        fmt::format("{} predicts {} ids, {} predicts {}", a.folder().string(),
                    a.config().output_vocab, b.folder().string(), b.config().output_vocab),
        "only models with the same vocabulary can be compared");
  }
  check_ids(ids, a.config(), "the text");
  check_ids(ids, b.config(), "the text");
  for (const TokenId id : ids) {
    if (id < a.config().output_vocab) continue;
    throw_bad_input(fmt::format("the text has the id {}, which the models never predict", id));
  }
  const auto total = static_cast<int64_t>(ids.size());
  if (total < 2) throw_bad_input("the text has fewer than 2 tokens");
  const int64_t window = std::min(length, total);
  Side sides[2] = {{a, window}, {b, window}};
  const int64_t step = std::min(sides[0].runner.max_tokens(), sides[1].runner.max_tokens());

  StreamErrors streams(sides[0], sides[1]);

  std::vector<float> divergences;
  std::vector<double> row_nll_a(size_t{kLogitRows}), row_nll_b(size_t{kLogitRows});
  std::vector<float> row_kl(size_t{kLogitRows});
  std::vector<char> row_same(size_t{kLogitRows});
  Comparison result;
  int64_t same = 0;
  for (int64_t begin = 0; begin + 1 < total; begin += window) {
    const int64_t end = std::min(begin + window, total);
    Sequence first(sides[0].cache, a.config(), a.engine_options().rules, end - begin);
    Sequence second(sides[1].cache, b.config(), b.engine_options().rules, end - begin);
    first.reserve(end - begin);
    second.reserve(end - begin);
    for (int64_t at = begin; at < end; at += step) {
      const int64_t count = std::min(step, end - at);
      const BatchItem item_a = {&first, ids.subspan(size_t(at), size_t(count))};
      const BatchItem item_b = {&second, ids.subspan(size_t(at), size_t(count))};
      const ConstRows hidden_a =
          sides[0].runner.forward({&item_a, 1}, sides[0].cache, Runner::Want::All);
      const ConstRows hidden_b =
          sides[1].runner.forward({&item_b, 1}, sides[1].cache, Runner::Want::All);
      for (int64_t row = 0; row < count; row += kLogitRows) {
        const int64_t rows = std::min(kLogitRows, count - row);
        const MutRows logits_a = sides[0].runner.logits(hidden_a.slice(row, row + rows));
        const MutRows logits_b = sides[1].runner.logits(hidden_b.slice(row, row + rows));
        a.pool().parallel_for(rows, 1, [&](int64_t from, int64_t to, int) {
          for (int64_t r = from; r < to; ++r) {
            const int64_t position = at + row + r;
            if (position + 1 >= end) continue;
            const auto next = static_cast<size_t>(ids[size_t(position + 1)]);
            const std::span<const float> p(logits_a.row(r), size_t(logits_a.cols));
            const std::span<const float> q(logits_b.row(r), size_t(logits_b.cols));
            row_nll_a[size_t(r)] = log_sum_exp(p) - static_cast<double>(p[next]);
            row_nll_b[size_t(r)] = log_sum_exp(q) - static_cast<double>(q[next]);
            row_kl[size_t(r)] = static_cast<float>(kl_divergence(p, q));
            row_same[size_t(r)] = std::max_element(p.begin(), p.end()) - p.begin() ==
                                  std::max_element(q.begin(), q.end()) - q.begin();
          }
        });
        for (int64_t r = 0; r < rows && at + row + r + 1 < end; ++r) {
          if (!std::isfinite(row_nll_a[size_t(r)])) a.explain_nonfinite();
          if (!std::isfinite(row_nll_b[size_t(r)])) b.explain_nonfinite();
          result.nll_a += row_nll_a[size_t(r)];
          result.nll_b += row_nll_b[size_t(r)];
          result.kl_mean += static_cast<double>(row_kl[size_t(r)]);
          divergences.push_back(row_kl[size_t(r)]);
          same += row_same[size_t(r)];
        }
      }
    }
    if (on_progress) on_progress(end);
  }
  result.tokens = static_cast<int64_t>(divergences.size());
  const auto n = static_cast<double>(result.tokens);
  result.kl_mean /= n;
  result.top1 = static_cast<double>(same) / n;
  std::sort(divergences.begin(), divergences.end());
  // The smallest value that 99 % of the positions do not exceed.
  const auto place = static_cast<size_t>(std::ceil(0.99 * n)) - 1;
  result.kl_p99 = static_cast<double>(divergences[place]);
  result.kl_max = static_cast<double>(divergences.back());
  result.kl = std::move(divergences);
  result.block_error = streams.errors();
  return result;
}

}  // namespace quern
