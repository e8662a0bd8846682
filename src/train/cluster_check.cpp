#include "train/cluster_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "compute/cpu/machine.h"

namespace quern {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::vector<std::string> all_hosts(Communicator& ranks, const std::string& host) {
  std::array<std::byte, 256> mine{};
  std::memcpy(mine.data(), host.data(), std::min(host.size(), mine.size() - 1));
  const std::vector<std::byte> all = ranks.all_gather(std::span<const std::byte>(mine));
  std::vector<std::string> out;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    out.emplace_back(reinterpret_cast<const char*>(all.data()) +
                     static_cast<size_t>(rank) * mine.size());
  }
  return out;
}

void measure_links(Communicator& ranks, ClusterReport& report) {
  constexpr size_t kBytes = size_t{4} << 20;
  for (int a = 0; a < ranks.size(); ++a) {
    for (int b = a + 1; b < ranks.size(); ++b) {
      double best = 1e30, quick = 1e30;
      for (int i = 0; i < 3; ++i) {
        best = std::min(best, ranks.time_exchange(a, b, kBytes));
        quick = std::min(quick, ranks.time_exchange(a, b, 8));
      }
      // The two know; the first rank hears of it.
      const double mine[] = {ranks.rank() == a ? best : 0, ranks.rank() == a ? quick : 0};
      const std::vector<double> all = ranks.all_gather(std::span<const double>(mine));
      const auto at = 2 * static_cast<size_t>(a);
      const auto& one = report.ranks[static_cast<size_t>(a)];
      const auto& two = report.ranks[static_cast<size_t>(b)];
      report.links.push_back({a, b, one.host == two.host,
                              static_cast<double>(kBytes) / all[at] * 1e-9, all[at + 1] * 1e6});
    }
  }
}

void measure_all_reduce(Communicator& ranks, ClusterReport& report) {
  for (const size_t bytes :
       {size_t{4} << 10, size_t{256} << 10, size_t{4} << 20, size_t{32} << 20}) {
    std::vector<float> values(bytes / sizeof(float), 1.0F);
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
      ranks.barrier();
      const auto begun = std::chrono::steady_clock::now();
      ranks.all_reduce(values);
      best = std::min(
          best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
    }
    const double n = ranks.size();
    report.all_reduces.push_back(
        {bytes, best, 2 * (n - 1) / n * static_cast<double>(bytes) / best * 1e-9});
  }
}

void judge(ClusterReport& report) {
  std::vector<double> speeds;
  for (const auto& rank : report.ranks) speeds.push_back(rank.gflops);
  const double usual = median(speeds);
  for (size_t i = 0; i < report.ranks.size(); ++i) {
    if (report.ranks[i].gflops >= 0.7 * usual) continue;
    report.problems.push_back(
        fmt::format("rank {} on {} computes {:.0f} GFLOP/s, the median is {:.0f}", i,
                    report.ranks[i].host, report.ranks[i].gflops, usual));
  }
  for (const bool inside : {true, false}) {
    std::vector<double> rates;
    for (const auto& link : report.links) {
      if (link.same_host == inside) rates.push_back(link.gb_per_s);
    }
    const double rate = median(rates);
    for (const auto& link : report.links) {
      if (link.same_host != inside || link.gb_per_s >= 0.5 * rate) continue;
      report.problems.push_back(fmt::format(
          "the link of ranks {} ({}) and {} ({}) carries {:.2f} GB/s, the median {} is {:.2f}",
          link.a, report.ranks[static_cast<size_t>(link.a)].host, link.b,
          report.ranks[static_cast<size_t>(link.b)].host, link.gb_per_s,
          inside ? "inside a host" : "between hosts", rate));
    }
  }
}

}  // namespace

ClusterReport check_cluster(Communicator& ranks, CpuTrainingBackend& backend, ThreadPool& pool,
                            const std::string& host) {
  ClusterReport report;
  ranks.set_stage("the measuring of machines");
  const std::vector<std::string> hosts = all_hosts(ranks, host);
  ranks.barrier();
  const double mine[] = {static_cast<double>(pool.size()), backend.measured_peak() * 1e-9,
                         cpu::measured_read_bandwidth(pool, cpu::chosen_isa()) * 1e-9};
  const std::vector<double> all = ranks.all_gather(std::span<const double>(mine));
  for (size_t i = 0; i < hosts.size(); ++i) {
    report.ranks.push_back(
        {hosts[i], static_cast<int>(all[3 * i]), all[3 * i + 1], all[3 * i + 2]});
  }
  ranks.set_stage("the measuring of links");
  measure_links(ranks, report);
  if (!ranks.alone()) measure_all_reduce(ranks, report);
  judge(report);
  return report;
}

}  // namespace quern
