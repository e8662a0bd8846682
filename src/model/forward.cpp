#include "model/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/error.h"
#include "model/rotary.h"

namespace quern {

std::vector<Runner::ScratchPart> Runner::scratch_plan(const Config& c, int64_t tokens,
                                                      int64_t max_logits, int64_t lora_rank) {
  const int64_t half = c.rotary_dim / 2;
  return {{&Runner::x_, tokens, c.hidden},
          {&Runner::normed_, tokens, c.hidden},
          {&Runner::qkv_, tokens, c.query_dim() + 2 * c.kv_dim()},
          {&Runner::attended_, tokens, c.query_dim()},
          {&Runner::gate_, tokens, c.ffn},
          {&Runner::up_, tokens, c.ffn},
          {&Runner::lora_, tokens, lora_rank},
          {&Runner::cos_, tokens, half},
          {&Runner::sin_, tokens, half},
          {&Runner::logits_, max_logits, c.output_vocab},
          {&Runner::kept_x_, tokens, c.hidden},
          {&Runner::kept_cos_, tokens, half},
          {&Runner::kept_sin_, tokens, half}};
}

uint64_t Runner::memory_bytes(const Config& config, int64_t max_tokens, int64_t max_logits,
                              int64_t lora_rank) noexcept {
  // Beside the tensors: ids, spans and scales of each token.
  constexpr uint64_t kPerToken = 2 * (sizeof(AttentionSpan) + sizeof(int32_t) + sizeof(float));
  uint64_t bytes = static_cast<uint64_t>(max_tokens) * kPerToken;
  for (const ScratchPart& part : scratch_plan(config, max_tokens, max_logits, lora_rank)) {
    bytes += static_cast<uint64_t>(part.rows * part.cols) * sizeof(float);
  }
  return bytes;
}

Runner::Runner(const Network& network, int64_t max_tokens, int64_t max_logits)
    : run_(network.backend),
      config_(network.config),
      w_(network.weights),
      max_tokens_(max_tokens),
      max_logits_(max_logits),
      rotary_magnitude_(quern::rotary_magnitude(network.config)) {
  for (const ScratchPart& part :
       scratch_plan(config_, max_tokens, max_logits, w_.max_lora_rank())) {
    this->*part.tensor = run_.allocate(DType::F32, {part.rows, std::max<int64_t>(part.cols, 1)});
  }
  scale_.reserve(static_cast<size_t>(max_tokens));
  kept_scale_.reserve(static_cast<size_t>(max_tokens));
  kept_spans_.reserve(static_cast<size_t>(max_tokens));
  ids_.reserve(static_cast<size_t>(max_tokens));
  output_rows_.reserve(static_cast<size_t>(max_tokens));
  spans_.reserve(static_cast<size_t>(max_tokens));
}

std::vector<std::span<std::byte>> Runner::scratch() noexcept {
  std::vector<std::span<std::byte>> out;
  for (const ScratchPart& part : scratch_plan(config_, max_tokens_, max_logits_, 1)) {
    Tensor& tensor = this->*part.tensor;
    out.emplace_back(tensor.data(), tensor.bytes());
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
    Sequence& sequence = *item.sequence;
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
                  sequence.inverse_frequencies(position), position, rotary_magnitude_);
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

// A model without rotated dims has empty tables.
Angles Runner::angles(Tensor& cos, Tensor& sin, int64_t tokens) const noexcept {
  const int64_t half = config_.rotary_dim / 2;
  const auto rows = [&](Tensor& table) {
    return ConstRows{table.floats().data(), tokens, half, half};
  };
  return {rows(cos), rows(sin)};
}

void Runner::probe(int64_t layer, std::string_view name, ConstRows rows) const {
  if (probe_) probe_(layer < 0 ? std::string(name) : fmt::format("block{}.{}", layer, name), rows);
}

void Runner::finish_block(const Block& block, MutRows x) {
  const MutRows gate = rows_of(gate_, x.rows);
  block.attention_output(x, x, rows_of(attended_, x.rows));
  block.feed_forward(
      x, x,
      {.norm = rows_of(normed_, x.rows), .gate = gate, .up = rows_of(up_, x.rows), .gated = gate});
}

void Runner::block(int64_t layer, KvCache& cache) {
  const auto tokens = static_cast<int64_t>(ids_.size());
  const MutRows x = rows_of(x_, tokens);
  const auto tell = [&](std::string_view name, ConstRows rows) { probe(layer, name, rows); };
  const Block block(run_, config_, w_.layers[static_cast<size_t>(layer)], rows_of(lora_, tokens),
                    tell);
  const QkvHeads heads = block.qkv(x, {.norm = rows_of(normed_, tokens),
                                       .qkv = rows_of(qkv_, tokens),
                                       .angles = angles(cos_, sin_, tokens)});
  for (AttentionSpan& span : spans_) span.kv.layer_offset = layer * cache.layout().layer_bytes();
  run_.kv_store(cache.layout(), spans_, heads.k, heads.v);
  run_.attention(query_heads(config_, rows_of(attended_, tokens)), heads.q, cache.layout(), spans_,
                 scale_, config_.window(layer));
  finish_block(block, x);
  probe(layer, "out", x);
}

// The last block where the output of some rows is wanted only: all give their keys and values, and
// only those go on. Their residual stream is kept_x_.
void Runner::last_block_of_outputs(KvCache& cache) {
  const int64_t layer = config_.layers - 1;
  const auto tokens = static_cast<int64_t>(ids_.size()), wanted = std::ssize(output_rows_);
  const MutRows x = rows_of(kept_x_, wanted);
  const Angles all = angles(cos_, sin_, tokens), kept = angles(kept_cos_, kept_sin_, wanted);
  const int64_t half = config_.rotary_dim / 2;
  run_.gather_rows(x, rows_of(x_, tokens), output_rows_);
  run_.gather_rows({kept_cos_.floats().data(), wanted, half, half}, all.cos, output_rows_);
  run_.gather_rows({kept_sin_.floats().data(), wanted, half, half}, all.sin, output_rows_);

  const Block block(run_, config_, w_.layers[static_cast<size_t>(layer)], rows_of(lora_, tokens));
  const QkvHeads heads = block.keys_values(
      rows_of(x_, tokens),
      {.norm = rows_of(normed_, tokens), .qkv = rows_of(qkv_, tokens), .angles = all});
  for (AttentionSpan& span : spans_) span.kv.layer_offset = layer * cache.layout().layer_bytes();
  for (AttentionSpan& span : kept_spans_) span.kv.layer_offset = spans_[0].kv.layer_offset;
  run_.kv_store(cache.layout(), spans_, heads.k, heads.v);
  const MutHeads q = block.queries(
      x, {.norm = rows_of(normed_, wanted), .qkv = rows_of(qkv_, wanted), .angles = kept});
  run_.attention(query_heads(config_, rows_of(attended_, wanted)), q, cache.layout(), kept_spans_,
                 kept_scale_, config_.window(layer));
  finish_block(block, x);
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
    last_block_of_outputs(cache);
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
