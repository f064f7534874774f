// SPDX-License-Identifier: Apache-2.0
// stokerd: options, signals, and how it ends.
#include <grpc/grpc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "absl/synchronization/mutex.h"
#include "server/arena/capacity.h"
#include "server/config.h"
#include "server/daemon.h"
#include "server/ingest/cache.h"
#include "server/log.h"
#include "server/notify.h"
#include "shared/base/option_checks.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/base/version.h"

namespace stoker {
namespace {

// As commands.md of the project has them; README lists them.
int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kResourceExhausted:
      return 5;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
      return 6;
    default:
      return 70;
  }
}

struct CommandLine {
  std::string config_file;
  bool check_config = false;
  v1::Config flags;
};

// Adds the option `--field-name` for each field of Config.
void AddOptions(CLI::App* app, CommandLine* line) {
  const auto text = [app](const char* name, std::string* value, const char* help) {
    app->add_option(name, *value, help);
  };
  v1::Config* const flags = &line->flags;
  app->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app->add_option("--config", line->config_file, "Read this textproto file first; flags win over it");
  text("--socket", flags->mutable_socket(), "Path of the Unix socket (default: $XDG_RUNTIME_DIR/stoker/stoker.sock)");
  text("--socket-group", flags->mutable_socket_group(), "Group that may connect (default: the daemon's own)");
  text("--listen", flags->mutable_listen(), "HOST:PORT to listen on TCP as well; unencrypted (default: no TCP)");
  text("--cache-dir", flags->mutable_cache_dir(), "Stores and data sets (default: $XDG_CACHE_HOME/stoker)");
  app->add_option_function<std::vector<std::string>>(
         "--root",
         [flags](const std::vector<std::string>& roots) {
           *flags->mutable_root() = {roots.begin(), roots.end()};
         },
         "Data may be read below this directory only; may be repeated (default: the home directory)")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  text("--arena-bytes", flags->mutable_arena_bytes(), "Shared memory for batches: SIZE or auto (default: auto)");
  text("--segment-bytes", flags->mutable_segment_bytes(), "Of one segment, so of the largest batch (default: auto)");
  text("--workers", flags->mutable_workers(), "Worker processes: N or auto; 0 works in-process (default: auto)");
  text("--shm-dir", flags->mutable_shm_dir(), "Directory of the segments, on a tmpfs (default: /dev/shm)");
  text("--worker-program", flags->mutable_worker_program(), "Path of stoker-worker (default: beside stokerd)");
  text("--log-level", flags->mutable_log_level(), "debug, info, warning or error (default: info)");
  const auto number = [app](const char* name, auto set, const char* help) {
    app->add_option_function<double>(name, set, help)->check(AboveZero());
  };
  const auto limit = [app](const char* name, auto set, const char* help) {
    app->add_option_function<uint32_t>(name, set, help)->check(AboveZero());
  };
  limit(
      "--lease-limit", [flags](uint32_t n) { flags->set_lease_limit(n); }, "Batches a session may hold (default: 64)");
  limit(
      "--session-limit", [flags](uint32_t n) { flags->set_session_limit(n); }, "Sessions at once (default: 1024)");
  number(
      "--part-deadline", [flags](double s) { flags->set_part_deadline_seconds(s); },
      "Seconds after which a busy worker is taken for hung (default: 60)");
  number(
      "--drain-deadline", [flags](double s) { flags->set_drain_deadline_seconds(s); },
      "Seconds from SIGTERM to the end, at most (default: 10)");
  app->add_flag_callback(
      "--temporary", [flags] { flags->set_temporary(true); },
      "Remove the socket's directory at the end, with the cache if that is in it");
  app->add_flag("--check-config", line->check_config, "Say what would be done, and exit");
  app->set_version_flag("--version", kVersion);
  app->footer(
      "Example: stokerd --root ~/data --arena-bytes 2GiB\n"
      "Then:    stokerctl health; stokerctl ingest pumps --source ~/data/pumps_TRAIN.ts");
}

absl::StatusOr<DaemonOptions> Options(const CommandLine& line) {
  v1::Config config;
  if (!line.config_file.empty()) {
    STOKER_ASSIGN_OR_RETURN(config, ReadConfig(line.config_file));
  }
  return ResolveConfig(MergeConfig(config, line.flags));
}

absl::Status CheckConfig(const DaemonOptions& options) {
  std::cout << DescribeOptions(options);
  STOKER_ASSIGN_OR_RETURN(const arena::HostMemory host, arena::ReadHostMemory(options.shm_dir));
  STOKER_ASSIGN_OR_RETURN(const arena::ArenaSize size,
                          arena::ChooseArenaSize(options.arena_bytes, options.segment_bytes, host));
  std::cout << "arena: " << FormatSize(size.capacity_bytes) << " in segments of " << FormatSize(size.segment_bytes)
            << "\n";
  return absl::OkStatus();
}

// Waits for SIGTERM or SIGINT, and feeds the watchdog as long as the event loop turns.
void ServeUntilSignal(const Daemon& daemon, const sigset_t& signals) {
  const absl::Duration watchdog = WatchdogInterval();
  const absl::Duration pause = std::min(watchdog / 2, absl::Hours(1));
  uint64_t turns = daemon.turns();
  while (true) {
    const timespec timeout = absl::ToTimespec(pause);
    const int signal = ::sigtimedwait(&signals, nullptr, &timeout);
    if (signal == SIGTERM || signal == SIGINT) {
      log::Info("stopping", {{"signal", signal}});
      return;
    }
    if (signal == SIGHUP) log::Warning("SIGHUP is ignored; restart to read another configuration");
    const uint64_t now = daemon.turns();
    if (watchdog != absl::InfiniteDuration() && now != turns) NotifyServiceManager("WATCHDOG=1");
    turns = now;
  }
}

// A client takes two descriptors, and a login shell allows 1024.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What a daemon of one program leaves: who started it may be dead.
void RemoveTemporary(const DaemonOptions& options) {
  const std::filesystem::path directory = std::filesystem::path(options.socket).parent_path();
  const std::filesystem::path cache = options.cache_dir;
  if (cache.parent_path() == directory) ingest::CacheDir(cache).Remove();
  std::error_code error;
  std::filesystem::remove(directory, error);
}

absl::Status Serve(const DaemonOptions& options) {
  log::SetLevel(options.log_level);
  // Blocked in every thread that is started from here on; this one waits for them. Workers start with none blocked.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  // Never shut down, as the process ends: gRPC 1.51 would wait for a poll of up to ten seconds, which it begins when a
  // client's socket is full, as those that get batches inline are.
  grpc_init();
  RaiseDescriptorLimit();
  NotifyServiceManager("STATUS=Reserving shared memory");
  STOKER_ASSIGN_OR_RETURN(std::unique_ptr<Daemon> daemon,
                          Daemon::Start(options, [] { NotifyServiceManager("READY=1\nSTATUS=Serving"); }));
  ServeUntilSignal(*daemon, signals);
  NotifyServiceManager("STOPPING=1\nSTATUS=Draining");
  daemon->Stop();
  daemon.reset();
  if (options.temporary) RemoveTemporary(options);
  log::Info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace stoker

int main(int argc, char** argv) {
#ifdef NDEBUG  // some builds of Abseil, Debian's among them, look for lock cycles at every lock in release builds too
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  CLI::App app(
      "Keeps training processes fed: makes batches of preprocessed data in shared memory, for clients to map.");
  stoker::CommandLine line;
  stoker::AddOptions(&app, &line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "stokerd: " << error.what() << "; see stokerd --help\n";
    return 2;
  }
  const absl::StatusOr<stoker::DaemonOptions> options = stoker::Options(line);
  absl::Status status = options.status();
  if (status.ok()) status = line.check_config ? stoker::CheckConfig(*options) : stoker::Serve(*options);
  if (!status.ok()) std::cerr << "stokerd: " << status.message() << "\n";
  return stoker::ExitCode(status);
}
