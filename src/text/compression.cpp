#include "text/compression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace quern {
namespace {

std::string xml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::vector<Compression> measure_compression(const fs::path& folder,
                                             const std::vector<NamedTokenizer>& tokenizers,
                                             ThreadPool& threads) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  if (files.empty()) throw_bad_input(folder.string() + ": has no *.txt, one for each language");
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    const bool code_a = a.stem() == "code", code_b = b.stem() == "code";
    return code_a != code_b ? code_b : a.stem() < b.stem();
  });
  std::vector<Compression> rows(files.size());
  threads.parallel_for(static_cast<int64_t>(files.size()), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; ++i) {
      const fs::path& file = files[static_cast<size_t>(i)];
      Compression& row = rows[static_cast<size_t>(i)];
      row.language = file.stem().string();
      row.tokens.assign(tokenizers.size(), 0);
      const std::string text = read_file(file);
      std::vector<TokenId> ids;
      for (std::string_view rest = text; !rest.empty();) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        const std::string_view line = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (line.empty()) continue;
        ++row.lines;
        row.bytes += static_cast<int64_t>(line.size());
        for (size_t which = 0; which < tokenizers.size(); ++which) {
          ids.clear();
          tokenizers[which].tokenizer->encode(line, ids);
          row.tokens[which] += static_cast<int64_t>(ids.size());
        }
      }
      if (*std::min_element(row.tokens.begin(), row.tokens.end()) == 0) {
        throw_bad_input(file.string() + ": holds no text");
      }
    }
  });
  return rows;
}

std::string compression_figure(const std::vector<Compression>& rows,
                               const std::vector<NamedTokenizer>& tokenizers) {
  constexpr const char* kColors[] = {"#9aa3ad", "#3b6fd4", "#e0843a",
                                     "#4c9f5e", "#b04a8f", "#c9a227"};
  constexpr double kLeft = 56, kTop = 52, kHeight = 300, kBottom = 44, kGroup = 46, kGap = 10;
  double most = 1;
  for (const Compression& row : rows) {
    for (size_t i = 0; i < tokenizers.size(); ++i) most = std::max(most, row.relative(i));
  }
  const double top = std::ceil(most * 5 + 0.25) / 5;
  const double group = std::max(kGroup, kGap + 13 * double(tokenizers.size()));
  const double width = kLeft + group * double(rows.size()) + 20;
  const double bar = (group - kGap) / double(tokenizers.size());
  const auto y_of = [&](double value) { return kTop + kHeight * (1 - value / top); };
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{2}\" y=\"20\" font-size=\"14\">Compression relative to {3} (higher is better)"
      "</text>\n",
      width, kTop + kHeight + kBottom, kLeft, xml(tokenizers[0].name));
  double x = kLeft;
  for (size_t i = 0; i < tokenizers.size(); ++i) {
    svg += fmt::format(
        "<rect x=\"{}\" y=\"30\" width=\"11\" height=\"11\" fill=\"{}\"/>"
        "<text x=\"{}\" y=\"40\">{}</text>\n",
        x, kColors[i % std::size(kColors)], x + 15, xml(tokenizers[i].name));
    x += 40 + 7.5 * double(tokenizers[i].name.size());
  }
  for (int step = 0; step / 5.0 <= top + 1e-9; ++step) {
    const double y = y_of(step / 5.0);
    svg += fmt::format(
        "<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.1f}</text>\n",
        kLeft, y, width - 20, y, step == 5 ? "#555" : "#ddd", kLeft - 8, y + 4, step / 5.0);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const double left = kLeft + group * double(i) + kGap / 2;
    for (size_t which = 0; which < tokenizers.size(); ++which) {
      const double y = y_of(rows[i].relative(which));
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
          left + bar * double(which), y, bar - 1, y_of(0) - y, kColors[which % std::size(kColors)]);
    }
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                       left + (group - kGap) / 2, y_of(0) + 18, xml(rows[i].language));
  }
  return svg + "</svg>\n";
}

}  // namespace quern
