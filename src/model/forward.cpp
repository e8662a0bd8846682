#include "model/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/error.h"
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
  scale_.reserve(static_cast<size_t>(max_tokens));
  logits_ = floats(max_logits, c.output_vocab);
  kept_x_ = floats(max_tokens, c.hidden);
  kept_normed_ = floats(max_tokens, c.hidden);
  kept_cos_ = floats(max_tokens, c.rotary_dim / 2);
  kept_sin_ = floats(max_tokens, c.rotary_dim / 2);
  kept_scale_.reserve(static_cast<size_t>(max_tokens));
  kept_spans_.reserve(static_cast<size_t>(max_tokens));
  ids_.reserve(static_cast<size_t>(max_tokens));
  output_rows_.reserve(static_cast<size_t>(max_tokens));
  spans_.reserve(static_cast<size_t>(max_tokens));
}

std::vector<std::span<std::byte>> Runner::scratch() noexcept {
  std::vector<std::span<std::byte>> out;
  for (Tensor* tensor : {&x_, &normed_, &qkv_, &attended_, &gate_, &up_, &lora_, &cos_, &sin_,
                         &logits_, &kept_x_, &kept_normed_, &kept_cos_, &kept_sin_}) {
    out.emplace_back(tensor->data(), tensor->bytes());
  }
  return out;
}

// Lays the batch's tokens out one sequence after another, with their angles and score scales.
int64_t Runner::plan(std::span<const BatchItem> batch) {
  ids_.clear();
  output_rows_.clear();
  spans_.clear();
  scale_.clear();
  kept_scale_.clear();
  kept_spans_.clear();
  const float plain_scale = 1 / std::sqrt(static_cast<float>(config_.head_dim));
  const int64_t half = config_.rotary_dim / 2;
  for (const BatchItem& item : batch) {
    const Sequence& sequence = *item.sequence;
    const auto first_row = static_cast<int64_t>(ids_.size());
    const auto count = static_cast<int64_t>(item.ids.size());
    assert(count > 0 && item.outputs >= 0 && item.outputs <= count &&
           first_row + count <= max_tokens_);
    ids_.insert(ids_.end(), item.ids.begin(), item.ids.end());
    spans_.push_back({.kv = {sequence.pages(), 0},
                      .first_row = first_row,
                      .count = count,
                      .first_position = sequence.length()});
    if (item.outputs > 0) {
      kept_spans_.push_back({.kv = {sequence.pages(), 0},
                             .first_row = static_cast<int64_t>(output_rows_.size()),
                             .count = item.outputs,
                             .first_position = sequence.length() + count - item.outputs});
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first_row + i;
      const int64_t position = sequence.length() + sequence.offset() + i;
      fill_rotary(cos_.floats().data() + row * half, sin_.floats().data() + row * half,
                  sequence.inverse_frequencies(), position, rotary_magnitude_);
      const float logn = sequence.logn() ? logn_factor(position, config_.trained_context) : 1.0f;
      scale_.push_back(plain_scale * logn);
      if (i >= count - item.outputs) {
        output_rows_.push_back(static_cast<int32_t>(row));
        kept_scale_.push_back(scale_.back());
      }
    }
  }
  return static_cast<int64_t>(ids_.size());
}

// A model without rotated dims has an empty table.
MutRows Runner::angles(Tensor& table, int64_t tokens) const noexcept {
  const int64_t half = config_.rotary_dim / 2;
  return {table.floats().data(), tokens, half, half};
}

void Runner::probe(int64_t layer, std::string_view name, ConstRows rows) const {
  if (probe_) probe_(layer < 0 ? std::string(name) : fmt::format("block{}.{}", layer, name), rows);
}

// With `kept`, of the last block: the wanted rows alone are computed behind the keys and values.
void Runner::block(int64_t layer, KvCache& cache, const KeptRows* kept) {
  const auto tokens = static_cast<int64_t>(ids_.size());
  const int64_t rows = kept == nullptr ? tokens : kept->norm.rows;
  const MutRows x_in = rows_of(x_, tokens);
  const MutRows x_out = kept == nullptr ? x_in : rows_of(kept_x_, rows);
  const MutRows attended = rows_of(attended_, rows);
  const MutRows gate = rows_of(gate_, rows);
  const BlockBuffers buffers = {.x_in = x_in,
                                .x_mid = x_out,
                                .x_out = x_out,
                                .norm_1 = rows_of(normed_, tokens),
                                .norm_2 = rows_of(normed_, rows),
                                .qkv = rows_of(qkv_, tokens),
                                .attended = attended,
                                .gate = gate,
                                .up = rows_of(up_, rows),
                                .swiglu = gate,
                                .lora = rows_of(lora_, tokens),
                                .kept = kept};
  const int64_t offset = layer * cache.layout().layer_bytes();
  for (AttentionSpan& span : spans_) span.kv.layer_offset = offset;
  for (AttentionSpan& span : kept_spans_) span.kv.layer_offset = offset;
  const auto attend = [&](const QkvHeads& h) {
    run_.kv_store(cache.layout(), spans_, h.k, h.v);
    const MutHeads out = {attended.data, rows, config_.heads, config_.head_dim, attended.stride};
    if (kept == nullptr) {
      run_.attention(out, h.q, cache.layout(), spans_, scale_, config_.window(layer));
    } else {
      run_.attention(out, h.q, cache.layout(), kept_spans_, kept_scale_, config_.window(layer));
    }
  };
  block_forward(run_, config_, w_.layers[static_cast<size_t>(layer)], buffers, angles(cos_, tokens),
                angles(sin_, tokens), attend,
                [&](std::string_view name, ConstRows x) { probe(layer, name, x); });
  probe(layer, "out", x_out);
}

ConstRows Runner::forward(std::span<const BatchItem> batch, KvCache& cache, Want want) {
  const int64_t tokens = plan(batch);
  const MutRows x = rows_of(x_, tokens);
  run_.embed(x, w_.embedding, ids_);
  probe(-1, "embed", x);
  for (int64_t l = 0; l + 1 < config_.layers; ++l) block(l, cache);

  // Of a prompt the hidden state of the last token is wanted, or none while it goes on.
  const auto wanted = static_cast<int64_t>(output_rows_.size());
  const bool all = want == Want::All || wanted == tokens;
  if (all) {
    block(config_.layers - 1, cache);
  } else {
    const MutRows cos = angles(kept_cos_, wanted), sin = angles(kept_sin_, wanted);
    run_.gather_rows(cos, angles(cos_, tokens), output_rows_);
    run_.gather_rows(sin, angles(sin_, tokens), output_rows_);
    const KeptRows kept = {output_rows_, rows_of(kept_normed_, wanted), cos, sin};
    block(config_.layers - 1, cache, &kept);
  }
  for (const BatchItem& item : batch) {
    item.sequence->advance(static_cast<int64_t>(item.ids.size()));
  }
  const MutRows out = rows_of(normed_, all ? tokens : wanted);
  run_.rms_norm(out, all ? x : rows_of(kept_x_, wanted), w_.final_norm, config_.norm_eps);
  probe(-1, "final", out);
  return out;
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
