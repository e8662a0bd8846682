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
  const int64_t half = c.rotary_dim / 2, ffn = mlp_width(c);
  const int64_t local_half = c.rope_local_theta > 0 ? half : 0;
  return {{&Runner::x_, tokens, c.hidden},
          {&Runner::normed_, tokens, c.hidden},
          {&Runner::qkv_, tokens, c.qkv_dim()},
          {&Runner::attended_, tokens, c.query_dim()},
          {&Runner::gate_, tokens, ffn},
          {&Runner::up_, tokens, ffn},
          {&Runner::lora_, tokens, lora_rank},
          {&Runner::branch_, tokens, needs_branch(c) ? c.hidden : 0},
          {&Runner::router_, tokens, c.experts.count},
          {&Runner::expert_rows_, tokens, c.experts.count > 0 ? c.hidden : 0},
          {&Runner::cos_, tokens, half},
          {&Runner::sin_, tokens, half},
          {&Runner::local_cos_, tokens, local_half},
          {&Runner::local_sin_, tokens, local_half},
          {&Runner::logits_, max_logits, c.output_vocab},
          {&Runner::kept_x_, tokens, c.hidden},
          {&Runner::kept_cos_, tokens, half},
          {&Runner::kept_sin_, tokens, half}};
}

uint64_t Runner::memory_bytes(const Config& config, int64_t max_tokens, int64_t max_logits,
                              int64_t lora_rank) noexcept {
  // Beside the tensors: ids, spans and scales of each token.
  constexpr uint64_t kPerToken = 2 * (sizeof(AttentionSpan) + 2 * sizeof(int32_t) + sizeof(float));
  const auto per_expert = static_cast<uint64_t>(config.experts.per_token) * 4 * sizeof(int32_t);
  uint64_t bytes = static_cast<uint64_t>(max_tokens) * (kPerToken + per_expert);
  for (const ScratchPart& part : scratch_plan(config, max_tokens, max_logits, lora_rank)) {
    bytes += static_cast<uint64_t>(part.rows * part.cols) * sizeof(float);
  }
  return bytes;
}

Runner::Runner(const Network& network, int64_t max_tokens, int64_t max_logits, int64_t adapter_rank)
    : run_(network.backend),
      config_(network.config),
      w_(network.weights),
      max_tokens_(max_tokens),
      max_logits_(max_logits),
      lora_rank_(std::max(network.weights.max_lora_rank(), adapter_rank)),
      rotary_magnitude_(quern::rotary_magnitude(network.config)),
      slopes_(alibi_slopes(network.config)),
      local_frequencies_(local_inverse_frequencies(network.config)) {
  for (const ScratchPart& part : scratch_plan(config_, max_tokens, max_logits, lora_rank_)) {
    if (part.cols > 0) this->*part.tensor = run_.allocate(DType::F32, {part.rows, part.cols});
  }
  scale_.reserve(static_cast<size_t>(max_tokens));
  kept_scale_.reserve(static_cast<size_t>(max_tokens));
  kept_spans_.reserve(static_cast<size_t>(max_tokens));
  ids_.reserve(static_cast<size_t>(max_tokens));
  output_rows_.reserve(static_cast<size_t>(max_tokens));
  spans_.reserve(static_cast<size_t>(max_tokens));
  positions_.reserve(static_cast<size_t>(max_tokens));
}

std::vector<std::span<std::byte>> Runner::scratch() noexcept {
  std::vector<std::span<std::byte>> out;
  for (const ScratchPart& part : scratch_plan(config_, max_tokens_, max_logits_, 1)) {
    Tensor& tensor = this->*part.tensor;
    if (tensor.empty()) continue;
    out.emplace_back(tensor.data(), tensor.bytes());
  }
  return out;
}

// Lays the batch's tokens out one sequence after another, with their angles and score scales.
int64_t Runner::plan(std::span<const BatchItem> batch) {
  ids_.clear();
  output_rows_.clear();
  positions_.clear();
  spans_.clear();
  scale_.clear();
  kept_scale_.clear();
  kept_spans_.clear();
  adapters_.clear();
  kept_adapters_.clear();
  const auto add_rows = [](std::vector<AdapterRows>& list, const Adapter* adapter, int64_t first,
                           int64_t count) {
    if (adapter == nullptr || count == 0) return;
    if (!list.empty() && list.back().adapter == adapter &&
        list.back().first + list.back().count == first) {
      list.back().count += count;
    } else {
      list.push_back({adapter, first, count});
    }
  };
  const float plain_scale = config_.score_scale();
  const int64_t half = config_.rotary_dim / 2;
  for (const BatchItem& item : batch) {
    const Sequence& sequence = *item.sequence;
    const auto first_row = static_cast<int64_t>(ids_.size());
    const auto count = static_cast<int64_t>(item.ids.size());
    assert(count > 0 && item.outputs >= 0 && item.outputs <= count &&
           first_row + count <= max_tokens_);
    assert(item.adapter == nullptr || item.adapter->max_rank() <= lora_rank_);
    add_rows(adapters_, item.adapter, first_row, count);
    add_rows(kept_adapters_, item.adapter, static_cast<int64_t>(output_rows_.size()), item.outputs);
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
      if (half > 0) {
        fill_rotary(cos_.floats().data() + row * half, sin_.floats().data() + row * half,
                    sequence.inverse_frequencies(), position, rotary_magnitude_);
      }
      if (!local_cos_.empty()) {
        fill_rotary(local_cos_.floats().data() + row * half,
                    local_sin_.floats().data() + row * half, local_frequencies_, position, 1);
      }
      positions_.push_back(static_cast<int32_t>(position));
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

Angles Runner::angles(int64_t layer, int64_t tokens, bool kept) noexcept {
  const RopeUse use = config_.rope(layer);
  const int64_t half = config_.rotary_dim / 2;
  if (use == RopeUse::None || half == 0) return {};
  const bool local = use == RopeUse::Local;
  Tensor& cos = kept ? kept_cos_ : local ? local_cos_ : cos_;
  Tensor& sin = kept ? kept_sin_ : local ? local_sin_ : sin_;
  return {{cos.floats().data(), tokens, half, half}, {sin.floats().data(), tokens, half, half}};
}

BlockScratch Runner::block_scratch(int64_t tokens, bool kept) noexcept {
  const auto rows = [&](Tensor& tensor) {
    return tensor.empty() ? MutRows{} : rows_of(tensor, tokens);
  };
  return {.lora = rows(lora_),
          .branch = rows(branch_),
          .router = rows(router_),
          .expert_rows = rows(expert_rows_),
          .routing = &routing_,
          .adapters = kept ? kept_adapters_ : adapters_};
}

void Runner::probe(int64_t layer, std::string_view name, ConstRows rows) const {
  if (probe_) probe_(layer < 0 ? std::string(name) : fmt::format("block{}.{}", layer, name), rows);
}

void Runner::finish_block(const Block& block, MutRows x) {
  const MutRows gate = rows_of(gate_, x.rows), norm = rows_of(normed_, x.rows);
  block.attention_output(x, x, rows_of(attended_, x.rows), norm);
  block.feed_forward(x, x, {.norm = norm, .gate = gate, .up = rows_of(up_, x.rows), .gated = gate});
}

void Runner::block(int64_t layer, KvCache& cache) {
  const auto tokens = static_cast<int64_t>(ids_.size());
  const MutRows x = rows_of(x_, tokens);
  const auto tell = [&](std::string_view name, ConstRows rows) { probe(layer, name, rows); };
  const Block block(run_, config_, w_.layers[static_cast<size_t>(layer)], block_scratch(tokens),
                    tell);
  const QkvHeads heads = block.qkv(x, {.norm = rows_of(normed_, tokens),
                                       .qkv = rows_of(qkv_, tokens),
                                       .angles = angles(layer, tokens)});
  for (AttentionSpan& span : spans_) span.kv.layer_offset = layer * cache.layout().layer_bytes();
  run_.kv_store(cache.layout(), spans_, heads.k, heads.v);
  run_.attention(query_heads(config_, rows_of(attended_, tokens)), heads.q, cache.layout(), spans_,
                 scale_, rules(layer));
  finish_block(block, x);
  probe(layer, "out", x);
}

// The last block where the output of some rows is wanted only: all give their keys and values, and
// only those go on. Their residual stream is kept_x_.
void Runner::last_block_of_outputs(KvCache& cache) {
  const int64_t layer = config_.layers - 1;
  const auto tokens = static_cast<int64_t>(ids_.size()), wanted = std::ssize(output_rows_);
  const MutRows x = rows_of(kept_x_, wanted);
  run_.gather_rows(x, rows_of(x_, tokens), output_rows_);
  const Angles all = angles(layer, tokens), kept = angles(layer, wanted, /*kept=*/true);
  if (all.cos.data != nullptr) {
    run_.gather_rows(rows_of(kept_cos_, wanted), all.cos, output_rows_);
    run_.gather_rows(rows_of(kept_sin_, wanted), all.sin, output_rows_);
  }
  const Layer& weights = w_.layers[static_cast<size_t>(layer)];
  const Block whole(run_, config_, weights, block_scratch(tokens));
  const Block block(run_, config_, weights, block_scratch(wanted, /*kept=*/true));
  const QkvHeads heads = whole.keys_values(
      rows_of(x_, tokens),
      {.norm = rows_of(normed_, tokens), .qkv = rows_of(qkv_, tokens), .angles = all});
  for (AttentionSpan& span : spans_) span.kv.layer_offset = layer * cache.layout().layer_bytes();
  for (AttentionSpan& span : kept_spans_) span.kv.layer_offset = spans_[0].kv.layer_offset;
  run_.kv_store(cache.layout(), spans_, heads.k, heads.v);
  const MutHeads q = block.queries(
      x, {.norm = rows_of(normed_, wanted), .qkv = rows_of(qkv_, wanted), .angles = kept});
  run_.attention(query_heads(config_, rows_of(attended_, wanted)), q, cache.layout(), kept_spans_,
                 kept_scale_, rules(layer));
  finish_block(block, x);
}

ConstRows Runner::forward(std::span<const BatchItem> batch, KvCache& cache, Want want) {
  const int64_t tokens = plan(batch);
  const MutRows x = rows_of(x_, tokens);
  embed_tokens(run_, config_, w_, x, ids_, positions_, rows_of(normed_, tokens));
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
  normalize(run_, config_, out, all ? x : rows_of(kept_x_, wanted), w_.final_norm);
  probe(-1, "final", out);
  return out;
}

MutRows Runner::logits(ConstRows hidden) {
  assert(hidden.rows <= max_logits_);
  const MutRows out = rows_of(logits_, hidden.rows);
  apply_linear(run_, hidden, {{&w_.lm_head, out}},
               lora_.empty() ? MutRows{} : rows_of(lora_, hidden.rows));
  if (config_.logit_scale != 1) run_.scale(out, config_.logit_scale);
  if (config_.logit_cap > 0) run_.soft_cap(out, config_.logit_cap);
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
