// The progress line at terminals of several widths, and what takes its place elsewhere.
#include "core/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "core/console.h"

namespace quern {
namespace {

// Standard error is a terminal of so many columns while this lives.
class ErrorTerminal {
 public:
  explicit ErrorTerminal(unsigned short columns) {
    resize(columns);
    ::openpty(&master_, &slave_, nullptr, nullptr, &size_);
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
    saved_ = ::dup(STDERR_FILENO);
    ::dup2(slave_, STDERR_FILENO);
  }
  ~ErrorTerminal() {
    ::dup2(saved_, STDERR_FILENO);
    for (const int descriptor : {master_, slave_, saved_}) ::close(descriptor);
  }
  void resize(unsigned short columns) {
    size_ = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    if (master_ >= 0) ::ioctl(master_, TIOCSWINSZ, &size_);
  }
  std::string output() {
    char block[1 << 16];
    const ssize_t got = ::read(master_, block, sizeof block);
    return got > 0 ? std::string(block, static_cast<size_t>(got)) : std::string();
  }

 private:
  winsize size_{};
  int master_ = -1, slave_ = -1, saved_ = -1;
};

// Environment variables that are put back.
class Variables {
 public:
  Variables(std::initializer_list<std::pair<const char*, const char*>> all) {
    for (const auto& [name, value] : all) {
      const char* old = std::getenv(name);
      saved_.emplace_back(name, old != nullptr ? std::optional<std::string>(old) : std::nullopt);
      value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
    }
  }
  ~Variables() {
    for (const auto& [name, value] : saved_) {
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
    }
  }

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> saved_;
};

// What a job at its middle shows.
std::string drawn(ErrorTerminal& terminal) {
  set_progress_mode(ProgressMode::Auto);
  Progress progress("training", 2000, "steps");
  std::this_thread::sleep_for(std::chrono::milliseconds(210));
  progress.update(1000, "loss 2.3100, 5.20 k tokens/s, lr 3.00e-04, norm 0.512, 812 MB");
  std::string out = terminal.output();
  progress.finish();
  return out;
}

TEST(ProgressLine, FitsTheTerminalAndSaysWhatMattersMost) {
  const Variables plain{{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}, {"NO_COLOR", nullptr}};
  size_t before = 0;
  for (const unsigned short columns : {20, 40, 80, 200}) {
    ErrorTerminal terminal(columns);
    const std::string out = drawn(terminal);
    EXPECT_EQ(out.find('\n'), out.npos) << out;
    EXPECT_LT(console::width(out), columns) << out;
    EXPECT_NE(out.find("50 %"), out.npos) << columns << ": " << out;
    if (columns >= 80) {
      for (const char* part : {"loss 2.3100", "left", "█"}) {
        EXPECT_NE(out.find(part), out.npos) << part << ": " << out;
      }
    }
    EXPECT_GT(out.size(), before) << out;
    before = out.size();
  }
}

TEST(ProgressLine, IsPlainWhereBlocksAreNotWanted) {
  for (const auto& unwanted : {std::pair("LC_ALL", "C"), std::pair("NO_COLOR", "1")}) {
    const Variables plain{{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}, unwanted};
    ErrorTerminal terminal(80);
    const std::string out = drawn(terminal);
    EXPECT_NE(out.find("[######"), out.npos) << out;
    for (const char c : out) EXPECT_LT(static_cast<unsigned char>(c), 0x80) << out;
  }
}

TEST(ProgressLine, AtADumbTerminalItIsLines) {
  const Variables dumb{{"TERM", "dumb"}};
  ErrorTerminal terminal(80);
  set_progress_mode(ProgressMode::Auto);
  Progress progress("training", 2, "steps");
  EXPECT_FALSE(console::is_terminal(STDERR_FILENO));
  progress.update(1);
  progress.finish();
  EXPECT_EQ(terminal.output(), "");  // too short for lines, and no bar
}

TEST(ProgressLine, IsDrawnAnewAfterTheTerminalBecameNarrower) {
  const Variables plain{{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"}};
  ErrorTerminal terminal(80);
  set_progress_mode(ProgressMode::Auto);
  Progress progress("training", 2000, "steps");
  std::this_thread::sleep_for(std::chrono::milliseconds(210));
  progress.update(1000, "loss 2.3100");
  const int width = console::width(terminal.output());
  terminal.resize(40);
  std::this_thread::sleep_for(std::chrono::milliseconds(210));
  progress.update(1001, "loss 2.3100");
  const std::string out = terminal.output();
  // The old line takes two rows of 40 columns now: both are cleared.
  EXPECT_GT(width, 40);
  EXPECT_TRUE(out.starts_with("\x1b[1A\r\x1b[J")) << out;
  EXPECT_LT(console::width(std::string_view(out).substr(8)), 40) << out;
  progress.finish();
}

}  // namespace
}  // namespace quern
