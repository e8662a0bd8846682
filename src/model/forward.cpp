#include "model/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/error.h"
#include "model/block.h"
#include "model/rotary.h"

namespace quern {

Runner::Runner(Backend& backend, const Config& config, const Weights& weights, int64_t max_tokens,
               int64_t max_logits)
    : run_(backend),
      config_(config),
      w_(weights),
      max_tokens_(max_tokens),
      max_logits_(max_logits),
      rotary_magnitude_(quern::rotary_magnitude(config)) {
  const Config& c = config;
  const auto floats = [&](int64_t rows, int64_t cols) {
    return run_.allocate(DType::F32, {rows, std::max<int64_t>(cols, 1)});
  };
  x_ = floats(max_tokens, c.hidden);
  normed_ = floats(max_tokens, c.hidden);
  qkv_ = floats(max_tokens, c.query_dim() + 2 * c.kv_dim());
  attended_ = floats(max_tokens, c.query_dim());
  gate_ = floats(max_tokens, c.ffn);
  up_ = floats(max_tokens, c.ffn);
  lora_ = floats(max_tokens, w_.max_lora_rank());
  cos_ = floats(max_tokens, c.rotary_dim / 2);
  sin_ = floats(max_tokens, c.rotary_dim / 2);
  scale_ = floats(max_tokens, 1);
  logits_ = floats(max_logits, c.output_vocab);
  ids_.reserve(static_cast<size_t>(max_tokens));
  output_rows_.reserve(static_cast<size_t>(max_tokens));
  spans_.reserve(static_cast<size_t>(max_tokens));
}

// Lays the batch's tokens out one sequence after another, with their angles and score scales.
int64_t Runner::plan(std::span<const BatchItem> batch) {
  ids_.clear();
  output_rows_.clear();
  spans_.clear();
  const float plain_scale = 1 / std::sqrt(static_cast<float>(config_.head_dim));
  const int64_t half = config_.rotary_dim / 2;
  for (const BatchItem& item : batch) {
    const Sequence& sequence = *item.sequence;
    const auto first_row = static_cast<int64_t>(ids_.size());
    const auto count = static_cast<int64_t>(item.ids.size());
    assert(count > 0 && item.outputs >= 0 && item.outputs <= count &&
           first_row + count <= max_tokens_);
    ids_.insert(ids_.end(), item.ids.begin(), item.ids.end());
    for (int64_t row = first_row + count - item.outputs; row < first_row + count; ++row) {
      output_rows_.push_back(static_cast<int32_t>(row));
    }
    spans_.push_back({.kv = {sequence.pages(), 0},
                      .first_row = first_row,
                      .count = count,
                      .first_position = sequence.length()});
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first_row + i;
      const int64_t position = sequence.length() + sequence.offset() + i;
      fill_rotary(cos_.floats().data() + row * half, sin_.floats().data() + row * half,
                  sequence.inverse_frequencies(), position, rotary_magnitude_);
      const float logn = sequence.logn() ? logn_factor(position, config_.trained_context) : 1.0f;
      scale_.floats()[static_cast<size_t>(row)] = plain_scale * logn;
    }
  }
  return static_cast<int64_t>(ids_.size());
}

void Runner::probe(int64_t layer, std::string_view name, ConstRows rows) const {
  if (probe_) probe_(layer < 0 ? std::string(name) : fmt::format("block{}.{}", layer, name), rows);
}

ConstRows Runner::forward(std::span<const BatchItem> batch, KvCache& cache, Want want) {
  const int64_t tokens = plan(batch);
  const Config& c = config_;
  const MutRows x = rows_of(x_, tokens);
  const MutRows normed = rows_of(normed_, tokens);
  const MutRows gate = rows_of(gate_, tokens);
  const MutRows attended = rows_of(attended_, tokens);
  const BlockBuffers buffers = {.x_in = x,
                                .x_mid = x,
                                .x_out = x,
                                .norm_1 = normed,
                                .norm_2 = normed,
                                .qkv = rows_of(qkv_, tokens),
                                .attended = attended,
                                .gate = gate,
                                .up = rows_of(up_, tokens),
                                .swiglu = gate,
                                .lora = rows_of(lora_, tokens)};
  const std::span<const float> scale = std::as_const(scale_).floats().first(size_t(tokens));
  // A model without rotated dims has an empty table.
  const int64_t half = c.rotary_dim / 2;
  const ConstRows cos = {cos_.floats().data(), tokens, half, half};
  const ConstRows sin = {sin_.floats().data(), tokens, half, half};

  run_.embed(x, w_.embedding, ids_);
  probe(-1, "embed", x);
  for (int64_t l = 0; l < c.layers; ++l) {
    for (AttentionSpan& span : spans_) span.kv.layer_offset = l * cache.layout().layer_bytes();
    block_forward(
        run_, c, w_.layers[static_cast<size_t>(l)], buffers, cos, sin,
        [&](const QkvHeads& h) {
          run_.kv_store(cache.layout(), spans_, h.k, h.v);
          const MutHeads out = {attended.data, tokens, c.heads, c.head_dim, attended.stride};
          run_.attention(out, h.q, cache.layout(), spans_, scale, c.window(l));
        },
        [&](std::string_view name, ConstRows rows) { probe(l, name, rows); });
    probe(l, "out", x);
  }
  for (const BatchItem& item : batch) {
    item.sequence->advance(static_cast<int64_t>(item.ids.size()));
  }
  if (want == Want::All) {
    run_.rms_norm(normed, x, w_.final_norm, c.norm_eps);
    probe(-1, "final", normed);
    return normed;
  }
  const MutRows wanted = rows_of(normed_, static_cast<int64_t>(output_rows_.size()));
  run_.gather_rows(wanted, x, output_rows_);
  run_.rms_norm(wanted, wanted, w_.final_norm, c.norm_eps);
  probe(-1, "final", wanted);
  return wanted;
}

MutRows Runner::logits(ConstRows hidden) {
  assert(hidden.rows <= max_logits_);
  const MutRows out = rows_of(logits_, hidden.rows);
  apply_linear(run_, hidden, {{&w_.lm_head, out}}, rows_of(lora_, hidden.rows));
  return out;
}

void check_ids(std::span<const int32_t> ids, const Config& config, std::string_view source) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < config.vocab) continue;
    throw_bad_input(fmt::format("{}: the id {} at index {} is out of range", source, ids[i], i),
                    fmt::format("the model has ids 0 to {}", config.vocab - 1));
  }
}

}  // namespace quern
