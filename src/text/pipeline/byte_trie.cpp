#include "text/pipeline/byte_trie.h"

#include <algorithm>

namespace quern {

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, int32_t>> strings) {
  std::stable_sort(strings.begin(), strings.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Each node stands for the strings [first, last) that are equal up to its depth. The edges of a
  // node are laid out when it is reached, so they lie together.
  struct Open {
    size_t first, last, depth;
  };
  std::vector<Open> open = {{0, strings.size(), 0}};
  nodes_.push_back({0, 0, -1});
  for (size_t node = 0; node < open.size(); ++node) {
    auto [first, last, depth] = open[node];
    nodes_[node].first_edge = static_cast<uint32_t>(bytes_.size());
    while (first < last && strings[first].first.size() == depth) {
      if (nodes_[node].value < 0 && depth > 0) nodes_[node].value = strings[first].second;
      ++first;
    }
    while (first < last) {
      const char byte = strings[first].first[depth];
      size_t end = first;
      while (end < last && strings[end].first[depth] == byte) ++end;
      bytes_.push_back(static_cast<unsigned char>(byte));
      targets_.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, 0, -1});
      open.push_back({first, end, depth + 1});
      ++nodes_[node].edges;
      first = end;
    }
  }
  for (uint32_t i = 0; i < nodes_[0].edges; ++i) root_[bytes_[i]] = targets_[i];
}

}  // namespace quern
