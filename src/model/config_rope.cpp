#include "model/config_rope.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"

namespace quern {
namespace {

using Type = RopeScaling::Type;

constexpr double kMaxBase = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 31;

struct TypeName {
  std::string_view name;
  Type type;
};
// The first name of each type is the one that is written.
constexpr TypeName kTypes[] = {
    {"default", Type::None}, {"linear", Type::Linear}, {"dynamic", Type::Dynamic},
    {"yarn", Type::Yarn},    {"llama3", Type::Llama3}, {"longrope", Type::LongRope},
    {"su", Type::LongRope},  // Phi-3's first name for it
};

Type type_of(const Json& rope) {
  const auto newer = rope.find("rope_type"), older = rope.find("type");
  if (!newer && !older) return Type::None;
  const std::string& name = (newer ? newer : older)->string();
  if (newer && older && older->string() != name) {
    rope.fail(fmt::format("has the rope_type '{}' and the type '{}'", printable(name, 40),
                          printable(older->string(), 40)));
  }
  for (const TypeName& known : kTypes) {
    if (known.name == name) return known.type;
  }
  rope.fail(fmt::format("has the type '{}', expected linear, dynamic, yarn, llama3 or longrope",
                        printable(name, 40)));
}

// A list with a factor for each frequency.
std::vector<float> factors(const Json& rope, const char* key, int64_t rotary_dim) {
  const Json list = rope.at(key);
  if (static_cast<int64_t>(list.size()) != rotary_dim / 2) {
    list.fail(fmt::format("has {} factors, expected {}, one for two rotated dims", list.size(),
                          rotary_dim / 2));
  }
  std::vector<float> out;
  for (const Json& item : list.items())
    out.push_back(static_cast<float>(item.number(1e-6, kMaxFactor)));
  return out;
}

void warn_of_others(const Json& rope, Type type) {
  std::vector<std::string_view> known = {"rope_type", "type", "rope_theta",
                                         "partial_rotary_factor"};
  const auto add = [&](std::initializer_list<std::string_view> keys) {
    known.insert(known.end(), keys);
  };
  if (type != Type::None) add({"factor", "original_max_position_embeddings"});
  if (type == Type::Yarn) {
    add({"beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate",
         "finetuned"});
  } else if (type == Type::Llama3) {
    add({"low_freq_factor", "high_freq_factor"});
  } else if (type == Type::LongRope) {
    add({"short_factor", "long_factor", "attention_factor"});
  }
  for (const auto& [key, value] : rope.members()) {
    if (value.is_null() || std::ranges::find(known, key) != known.end()) continue;
    log::warning(
        fmt::format("{}: '{}' is not known and has no effect", rope.where(), printable(key, 60)));
  }
}

RopeScaling parse_scaling(const Json& json, const Json& rope, const Config& c) {
  RopeScaling s;
  s.type = type_of(rope);
  warn_of_others(rope, s.type);
  if (s.type == Type::None) return s;
  for (const char* key : {"short_mscale", "long_mscale"}) {
    if (rope.has(key)) rope.at(key).fail("is set, which is not supported");
  }
  const auto optional = [&](const char* key, double min, double max) -> std::optional<double> {
    if (!rope.has(key)) return std::nullopt;
    return rope.at(key).number(min, max);
  };
  const auto context = static_cast<double>(c.max_context);
  const auto original = optional("original_max_position_embeddings", 1, 1e12);
  s.original_context = original.value_or(context);
  if (s.type == Type::LongRope) {
    // Phi-3 has it beside rope_scaling.
    if (!original) {
      s.original_context = json.number_or("original_max_position_embeddings", context, 1, 1e12);
    }
    s.factor = rope.number_or("factor", std::max(context / s.original_context, 1.0), 1, kMaxFactor);
    s.short_factors = factors(rope, "short_factor", c.rotary_dim);
    s.long_factors = factors(rope, "long_factor", c.rotary_dim);
    s.attention_factor = optional("attention_factor", 1e-6, kMaxFactor);
    return s;
  }
  s.factor = rope.at("factor").number(1, kMaxFactor);
  if (s.type == Type::Dynamic) {
    s.original_context = context;  // the reference's rule knows no other
  } else if (s.type == Type::Yarn) {
    s.beta_fast = rope.number_or("beta_fast", 32, 1e-6, kMaxFactor);
    s.beta_slow = rope.number_or("beta_slow", 1, 1e-6, kMaxFactor);
    if (s.beta_fast < s.beta_slow) rope.fail("has a beta_fast below its beta_slow");
    s.truncate = rope.boolean_or("truncate", true);
    s.attention_factor = optional("attention_factor", 1e-6, kMaxFactor);
    s.mscale = optional("mscale", 0, kMaxFactor);
    s.mscale_all_dim = optional("mscale_all_dim", 0, kMaxFactor);
  } else if (s.type == Type::Llama3) {
    s.low_freq_factor = rope.at("low_freq_factor").number(1e-3, kMaxFactor);
    s.high_freq_factor = rope.at("high_freq_factor").number(1e-3, kMaxFactor);
    if (s.high_freq_factor <= s.low_freq_factor) {
      rope.fail("has a high_freq_factor that is not above its low_freq_factor");
    }
    if (!original) rope.at("original_max_position_embeddings");  // throws: there is no default
  }
  return s;
}

// What a set of rotary parameters says.
void apply(const Json& json, const Json& rope, Config& c, bool newer) {
  if (newer && !rope.has("rope_theta") && !json.has("rope_theta")) rope.at("rope_theta");
  if (const auto theta = rope.find("rope_theta")) {
    const double inner = theta->number(1, kMaxBase);
    if (json.has("rope_theta") && json.at("rope_theta").number(1, kMaxBase) != inner) {
      log::warning(fmt::format("{}: rope_theta is {:g} here, {:g} outside; {:g} counts",
                               rope.where(), inner, c.rope_theta, inner));
    }
    c.rope_theta = inner;
  }
  if (const auto share = rope.find("partial_rotary_factor")) {
    c.rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * share->number(0, 1));
  }
  c.rope_scaling = parse_scaling(json, rope, c);
}

// The parameters themselves, or those of each layer type.
bool by_layer_type(const Json& rope) {
  const auto sets = rope.members();
  return !sets.empty() && std::ranges::all_of(sets, [](const auto& member) {
    return member.second.is_object() || member.second.is_null();
  });
}

// A set for layers of full attention and one for those of sliding attention. They may differ where
// the family's sliding layers turn by angles of their own, of one base and not scaled.
void apply_by_layer_type(const Json& json, const Json& sets, Config& c) {
  std::optional<Config> full, sliding;
  for (const auto& [type, set] : sets.members()) {
    if (set.is_null()) continue;
    if (type != "full_attention" && type != "sliding_attention") {
      sets.fail(
          fmt::format("is for layers of type '{}', expected full_attention or sliding_attention",
                      printable(type, 40)));
    }
    Config one = c;
    apply(json, set, one, /*newer=*/true);
    (type == "full_attention" ? full : sliding) = std::move(one);
  }
  if (!full && !sliding) return;
  const bool local = std::ranges::find(c.rope_layers, RopeUse::Local) != c.rope_layers.end();
  if (full && sliding) {
    const bool unlike = local ? sliding->rope_scaling.type != Type::None
                              : sliding->rope_theta != full->rope_theta ||
                                    sliding->rope_scaling != full->rope_scaling;
    if (unlike || sliding->rotary_dim != full->rotary_dim) {
      throw Error(Kind::Unsupported,
                  fmt::format("{}: layers of type sliding_attention turn by {}", sets.where(),
                              local ? "scaled angles, or over another part of each head"
                                    : "other angles than those of full_attention"),
                  local ? "this family scales those of full_attention only"
                        : "this family has one set of rotary parameters for all layers");
    }
  }
  if (local && sliding) c.rope_local_theta = sliding->rope_theta;
  const Config& all = full ? *full : *sliding;
  c.rope_theta = all.rope_theta;
  c.rotary_dim = all.rotary_dim;
  c.rope_scaling = all.rope_scaling;
}

}  // namespace

void parse_rope(const Json& json, Config& c) {
  c.rope_theta = json.number_or("rope_theta", c.rope_theta, 1, kMaxBase);
  if (const auto share = json.find("partial_rotary_factor")) {
    c.rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * share->number(0, 1));
  }
  const auto newer = json.find("rope_parameters"), older = json.find("rope_scaling");
  if (older) {
    if (!older->is_object()) older->fail("is no object");
    apply(json, *older, c, /*newer=*/false);
  }
  if (newer && !newer->is_object()) newer->fail("is no object");
  if (newer && by_layer_type(*newer)) {
    apply_by_layer_type(json, *newer, c);
  } else if (newer) {
    const RopeScaling before = c.rope_scaling;
    apply(json, *newer, c, /*newer=*/true);
    if (older && before != c.rope_scaling) {
      log::warning(fmt::format("{}: differs from rope_scaling and counts", newer->where()));
    }
  }
  // What these two stretch is the trained context, whether or not max_position_embeddings says so. A
  // dynamic factor of 1 (InternLM's) is no limit: four times the length, as ALiBi has it.
  const RopeScaling& s = c.rope_scaling;
  if (s.type == Type::Dynamic || s.type == Type::Yarn) {
    const double factor = s.type == Type::Dynamic && s.factor == 1 ? 4 : s.factor;
    const double stretched = std::min(s.original_context * factor, double{kMaxContext});
    c.max_context = std::max(c.max_context, static_cast<int64_t>(stretched));
  }
}

void add_rope(const Config& c, nlohmann::ordered_json& out) {
  const RopeScaling& s = c.rope_scaling;
  out["rope_theta"] = c.rope_theta;
  if (c.rotary_dim != c.head_dim) {
    out["partial_rotary_factor"] =
        static_cast<double>(c.rotary_dim) / static_cast<double>(c.head_dim);
  }
  out["max_position_embeddings"] =
      s.type == Type::Dynamic ? static_cast<int64_t>(s.original_context) : c.max_context;
  if (s.type == Type::None) return;
  const auto name = std::ranges::find(kTypes, s.type, &TypeName::type)->name;
  nlohmann::ordered_json rope = {{"rope_type", name}, {"factor", s.factor}};
  if (s.type != Type::Linear && s.type != Type::Dynamic) {
    rope["original_max_position_embeddings"] = static_cast<int64_t>(s.original_context);
  }
  if (s.attention_factor) rope["attention_factor"] = *s.attention_factor;
  if (s.type == Type::Yarn) {
    rope["beta_fast"] = s.beta_fast;
    rope["beta_slow"] = s.beta_slow;
    if (!s.truncate) rope["truncate"] = false;
    if (s.mscale) rope["mscale"] = *s.mscale;
    if (s.mscale_all_dim) rope["mscale_all_dim"] = *s.mscale_all_dim;
  } else if (s.type == Type::Llama3) {
    rope["low_freq_factor"] = s.low_freq_factor;
    rope["high_freq_factor"] = s.high_freq_factor;
  } else if (s.type == Type::LongRope) {
    rope["short_factor"] = s.short_factors;
    rope["long_factor"] = s.long_factors;
  }
  out["rope_scaling"] = std::move(rope);
}

}  // namespace quern
