#include "model/families.h"

#include <array>

#include "model/families/shared.h"

namespace quern {
namespace {

constexpr size_t kCount = static_cast<size_t>(Family::Olmo2) + 1;

// In the order of the enumeration.
std::array<FamilyRow, kCount> table() {
  std::array<FamilyRow, kCount> rows{};
  for (const auto& some :
       {family::llama(), family::qwen(), family::internlm(), family::gpt(), family::gemma()}) {
    for (const FamilyRow& row : some) rows[static_cast<size_t>(row.family)] = row;
  }
  return rows;
}

}  // namespace

std::span<const FamilyRow> families() noexcept {
  static const std::array<FamilyRow, kCount> rows = table();
  return rows;
}

const FamilyRow& row_of(Family family) noexcept { return families()[static_cast<size_t>(family)]; }

bool has_usual_rope(const Config& c) noexcept {
  return c.family != Family::Qwen && c.family != Family::ChatGlm && c.alibi_max == 0 &&
         c.learned_positions == 0;
}

std::optional<Json> find_any(const Json& json, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (name.empty()) continue;
    if (auto value = json.find(name)) return value;
  }
  return std::nullopt;
}

}  // namespace quern
