// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/command.h"
#include "shared/base/size.h"

namespace stoker::ctl {
namespace {

constexpr char kClearScreen[] = "\033[H\033[2J";

void PrintArena(std::ostream& out, const v1::StatusReply& status) {
  const v1::StatusReply::Arena& arena = status.arena();
  const v1::StatusReply::Extents& extents = arena.extents();
  PrintFields(
      out,
      {{"state", v1::StatusReply::State_Name(status.state())},
       {"version", absl::StrCat(status.version(), "  instance ", status.instance_id(), "  pid ", status.pid(), "  up ",
                                FormatSeconds(status.uptime_seconds()))},
       {"arena", absl::StrCat(FormatSize(arena.used_bytes()), " used, ", FormatSize(arena.free_bytes()), " free of ",
                              FormatSize(arena.capacity_bytes()), "  (", arena.mode(), ")")},
       {"batches", absl::StrCat(extents.planned(), " planned, ", extents.making(), " being made, ", extents.sealed(),
                                " sealed, ", extents.leased(), " leased, ", arena.evictions(), " evicted so far")},
       {status.shm().path().empty() ? "shm" : status.shm().path(),
        absl::StrCat(FormatSize(status.shm().used_bytes()), " used, ", FormatSize(status.shm().free_bytes()),
                     " free of ", FormatSize(status.shm().size_bytes()))}});
  for (const std::string& notice : status.notices()) out << "notice: " << notice << "\n";
  if (arena.segments().empty()) return;
  Table table({"segment", "size", "used", "prefaulted"});
  for (const v1::StatusReply::Segment& segment : arena.segments()) {
    table.Add({segment.name(), FormatSize(segment.size_bytes()), FormatSize(segment.used_bytes()),
               FormatSize(segment.prefaulted_bytes())});
  }
  out << "\n";
  table.Print(out);
}

void PrintWorkers(std::ostream& out, const v1::StatusReply& status) {
  if (status.workers().empty()) return;
  Table table({"worker", "role", "state", "parts", "restarts", "busy"});
  for (const v1::StatusReply::Worker& worker : status.workers()) {
    table.Add({absl::StrCat(worker.pid()), worker.role(), worker.state(), FormatCount(worker.parts_done()),
               absl::StrCat(worker.restarts()), FormatSeconds(worker.busy_seconds())});
  }
  out << "\n";
  table.Print(out);
}

void PrintStreams(std::ostream& out, const v1::StatusReply& status) {
  if (status.streams().empty()) return;
  Table table({"stream", "data set", "clients", "made", "delivered", "steps", "batch"});
  for (const v1::StatusReply::Stream& stream : status.streams()) {
    table.Add({absl::StrCat(stream.id()), stream.dataset(), absl::StrCat(stream.clients()),
               FormatCount(stream.batches_made()), FormatCount(stream.batches_delivered()),
               FormatCount(stream.steps_per_epoch()), FormatSize(stream.batch_bytes())});
  }
  out << "\n";
  table.Print(out);
}

void PrintSessions(std::ostream& out, const v1::StatusReply& status) {
  if (status.sessions().empty()) return;
  Table table({"session", "pid", "stream", "next", "leases", "oldest", "credits", "waits", "delivered", "age"});
  for (const v1::StatusReply::Session& session : status.sessions()) {
    table.Add({absl::StrCat(session.id()), absl::StrCat(session.pid()), absl::StrCat(session.stream()),
               absl::StrCat(session.position().epoch(), ":", session.position().step()), absl::StrCat(session.leases()),
               session.leases() == 0 ? "-" : FormatSeconds(session.oldest_lease_seconds()),
               absl::StrCat(session.credits()), session.waiting() ? "yes" : "no",
               FormatCount(session.batches_delivered()), FormatSeconds(session.age_seconds())});
  }
  out << "\n";
  table.Print(out);
}

void PrintDatasets(std::ostream& out, const v1::StatusReply& status) {
  if (status.datasets().empty()) return;
  Table table({"data set", "samples", "size"});
  for (const v1::DatasetInfo& dataset : status.datasets()) {
    table.Add({dataset.name(), FormatCount(dataset.samples()), FormatSize(dataset.bytes())});
  }
  out << "\n";
  table.Print(out);
}

void PrintStatus(const Output& output, const v1::StatusReply& status) {
  if (output.json) {
    PrintJson(output, status);
    return;
  }
  PrintArena(output.out, status);
  PrintWorkers(output.out, status);
  PrintStreams(output.out, status);
  PrintSessions(output.out, status);
  PrintDatasets(output.out, status);
  output.out << std::flush;
}

struct StatusArguments {
  bool watch = false;
  double interval_seconds = 1;
};

ExitCode RunStatus(const Context& context, const StatusArguments& arguments) {
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, "status", client.status());
  if (!arguments.watch) {
    const absl::StatusOr<v1::StatusReply> status = client->GetStatus();
    if (!status.ok()) return Fail(context.output, "status", status.status());
    PrintStatus(context.output, *status);
    return kDone;
  }
  const absl::Status end =
      client->WatchStatus(absl::Seconds(arguments.interval_seconds), [&context](const v1::StatusReply& status) {
        const bool screen = context.output.out_is_terminal && !context.output.json;
        context.output.out << (screen ? kClearScreen : "");
        PrintStatus(context.output, status);
        if (!screen && !context.output.json) context.output.out << "\n";
        return context.output.out.good();
      });
  return end.ok() ? kDone : Fail(context.output, "status", end);
}

}  // namespace

void AddStatus(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "status", "Arena, shared memory, workers, streams, sessions and their leases",
                                 "stokerctl status --watch --interval 0.5");
  auto arguments = std::make_shared<StatusArguments>();
  command->add_flag("--watch", arguments->watch,
                    "Again and again, until interrupted (with --json a document each time)");
  command->add_option("--interval", arguments->interval_seconds, "Seconds from one to the next")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunStatus(context, *arguments); }; });
}

}  // namespace stoker::ctl
