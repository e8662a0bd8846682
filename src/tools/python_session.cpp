#include "tools/python_session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <thread>

#include "core/error.h"
#include "sandbox/python.h"
#include "tools/builtin.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxOutput = size_t{64} << 10;  // of one piece of code
constexpr size_t kHead = 8;                      // hexadecimal digits of a length

// Reads pieces of code, runs them in one namespace, and tells on descriptor 3 what came of each:
// a digit (1: no exception) and the text; 2 and JSON for a call that is to be made for it, whose
// result comes on the way of the pieces. Output goes through a file, so that what child processes
// write is in it as well.
constexpr const char* kDriver = R"PY(
def _serve():
    import ast, json, linecache, os, sys, threading, traceback
    given = os.fdopen(os.dup(0), 'rb')
    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
    tell = os.dup(3)
    os.close(3)
    one_call = threading.Lock()
    def send(reply):
        reply = b'%08x' % len(reply) + reply
        while reply:
            reply = reply[os.write(tell, reply):]
    def call(name, arguments):
        with one_call:
            send(b'2' + json.dumps([name, arguments], default=str).encode())
            result = json.loads(given.read(int(given.read(8), 16)))
        if 'error' in result:
            raise RuntimeError(result['error'])
        return result['value']
    names = {'__name__': '__main__', '__builtins__': __builtins__, '_call': call}
    number = 0
    own = os.getpid()
    while True:
        head = given.read(8)
        if len(head) < 8:
            return
        code = given.read(int(head, 16)).decode('utf-8', 'replace')
        number += 1
        name = '<call %d>' % number
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        shown = os.open('/tmp', os.O_RDWR | os.O_TMPFILE)
        os.dup2(shown, 1)
        os.dup2(shown, 2)
        good = b'1'
        try:
            tree = ast.parse(code, name)
            last = None
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                last = ast.Expression(tree.body.pop().value)
            exec(compile(tree, name, 'exec'), names)
            if last is not None:
                value = eval(compile(last, name, 'eval'), names)
                if value is not None:
                    names['_'] = value
                    print(repr(value))
        except BaseException as problem:
            good = b'0'
            frames = problem.__traceback__
            while frames and not frames.tb_frame.f_code.co_filename.startswith('<call'):
                frames = frames.tb_next
            try:
                traceback.print_exception(type(problem), problem, frames, limit=-8)
            except BaseException:
                pass
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                pass
        if os.getpid() != own:  # a child that the code forked and that came as far as this
            os._exit(0)
        size = os.fstat(shown).st_size
        text = os.pread(shown, 65536, 0)
        if size > len(text):
            text += b'\n[%d bytes more]' % (size - len(text))
        os.close(shown)
        send(good + text)
_serve()
)PY";

}  // namespace

struct PythonSession::Process {
  int to = -1, from = -1;
  std::atomic<bool> end = false;
  SandboxOutcome outcome;
  std::exception_ptr failure;
  std::thread thread;

  Process() {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0) throw_errno("pipe", "cannot create");
    if (::pipe2(out, O_CLOEXEC) != 0) {
      ::close(in[0]);
      ::close(in[1]);
      throw_errno("pipe", "cannot create");
    }
    to = in[1];
    from = out[0];
    ::fcntl(to, F_SETFL, O_NONBLOCK);
    ::signal(SIGPIPE, SIG_IGN);
    thread = std::thread([this, input = in[0], report = out[1]] {
      try {
        SandboxLimits limits;
        limits.cpu_seconds = 600;
        limits.wall_seconds = 86400;
        limits.memory_bytes = int64_t{1} << 30;
        SandboxOptions options;
        options.input_descriptor = input;
        options.report_descriptor = report;
        options.cancel = &end;
        outcome = run_sandboxed({"/usr/bin/python3", "-I", "-c", kDriver}, limits, options);
      } catch (...) {
        failure = std::current_exception();
      }
      ::close(input);
      ::close(report);
    });
  }
  ~Process() {
    end = true;
    if (thread.joinable()) thread.join();
    ::close(to);
    ::close(from);
  }

  enum class State { Ready, Ended, Late, Cancelled };
  // Moves `bytes` out, or reads into `bytes` until it has `wanted`.
  State move(bool out, std::string& bytes, size_t wanted, Clock::time_point until,
             const std::atomic<bool>* cancel) const {
    size_t done = 0;
    while (done < wanted) {
      if (cancel != nullptr && cancel->load()) return State::Cancelled;
      if (Clock::now() >= until) return State::Late;
      pollfd file = {out ? to : from, static_cast<short>(out ? POLLOUT : POLLIN), 0};
      if (::poll(&file, 1, 20) <= 0) continue;
      char buffer[4096];
      const ssize_t count = out ? ::write(to, bytes.data() + done, wanted - done)
                                : ::read(from, buffer, std::min(sizeof buffer, wanted - done));
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (count <= 0) return State::Ended;
      if (!out) bytes.append(buffer, static_cast<size_t>(count));
      done += static_cast<size_t>(count);
    }
    return State::Ready;
  }
};

namespace {

// What a call of the code comes to; `text` is [name, {arguments}].
std::string answer(const std::string& text, const PythonSession::Caller& call) {
  if (!call) return R"({"error": "there are no functions to call here"})";
  try {
    const OrderedJson request = OrderedJson::parse(text, "call");
    if (request.is_array() && request.items.size() == 2 && request.items[0].is_string() &&
        request.items[1].is_object()) {
      return call(request.items[0].text, request.items[1]);
    }
  } catch (const Error&) {
  }
  return R"({"error": "a call needs a name and named arguments"})";
}

}  // namespace

PythonSession::PythonSession() = default;
PythonSession::~PythonSession() = default;

PythonSession::Outcome PythonSession::run(const std::string& code, double seconds,
                                          const std::atomic<bool>* cancel, const Caller& call) {
  using State = Process::State;
  check_python({});
  if (process_ == nullptr) process_ = std::make_unique<Process>();
  auto until = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
  std::string request = fmt::format("{:08x}{}", code.size(), code);
  State state = process_->move(true, request, request.size(), until, cancel);
  while (state == State::Ready) {
    std::string head, reply;
    state = process_->move(false, head, kHead, until, cancel);
    if (state != State::Ready) break;
    const size_t length =
        head.find_first_not_of("0123456789abcdef") == head.npos ? std::stoul(head, nullptr, 16) : 0;
    // A program may write here what it likes: what is no answer ends it.
    if (length < 1 || length > kMaxOutput + 100) break;
    state = process_->move(false, reply, length, until, cancel);
    if (state != State::Ready) break;
    if (reply[0] != '2') return {reply.substr(1), reply[0] != '1'};
    const auto begun = Clock::now();
    const std::string result = answer(reply.substr(1), call);
    until += Clock::now() - begun;
    request = fmt::format("{:08x}{}", result.size(), result);
    state = process_->move(true, request, request.size(), until, cancel);
  }
  // The interpreter ends here, whatever it was at.
  process_->end = true;
  process_->thread.join();
  const std::unique_ptr<Process> dead = std::move(process_);
  // One that was ended while it started says that it cannot start.
  const bool ended_by_us = state == State::Late || state == State::Cancelled;
  if (dead->failure && !ended_by_us) std::rethrow_exception(dead->failure);
  const SandboxOutcome& outcome = dead->outcome;
  const std::string why = state == State::Late ? fmt::format("took longer than {} s", seconds)
                          : state == State::Cancelled ? "was stopped"
                          : outcome.out_of_memory     ? "took too much memory"
                          : outcome.timed_out         ? "took too much processor time"
                          : outcome.exit >= 0
                              ? fmt::format("ended the interpreter with status {}", outcome.exit)
                              : fmt::format("ended the interpreter by signal {}", outcome.signal);
  return {outcome.err + "the code " + why + "; all names are lost", true};
}

namespace {

class PythonTool : public Tool {
 public:
  PythonTool() : Tool(make_spec()) {}
  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    const PythonSession::Outcome outcome =
        session_.run(text_argument(arguments, "code"), context.seconds, context.cancel);
    return {outcome.output.empty() ? "(no output)" : outcome.output, outcome.failed};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "python";
    spec.description =
        "Runs Python code and returns what it prints and the value of its last expression. "
        "Variables stay for later calls. There is no network.";
    spec.parameters = object_schema(R"({"code": {"type": "string"}})", {"code"});
    spec.timeout_s = 30;
    spec.origin = "built in";
    OrderedJson arguments;
    arguments.set("code", OrderedJson::of_string("sum(n * n for n in range(1, 11))"));
    spec.examples.push_back(
        {"What is the sum of the first ten square numbers?", std::move(arguments), "385", "385"});
    return spec;
  }

  PythonSession session_;
};

}  // namespace

std::unique_ptr<Tool> make_python() { return std::make_unique<PythonTool>(); }

}  // namespace quern
