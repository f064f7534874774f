// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/command.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "shared/base/version.h"

namespace stoker::ctl {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 done, 1 the answer is no, 2 usage or invalid value, 3 no daemon there, 4 bad data,\n"
    "5 not enough memory or disk, 6 not found or not allowed, 70 our bug.\n\n"
    "Example:\n  stokerctl --socket /run/stoker/stoker.sock --json status";

void AddGlobals(CLI::App& app, Context& context) {
  app.set_version_flag("--version", std::string("stokerctl ") + kVersion);
  app.add_option("--socket", context.socket,
                 "Socket of the daemon, or HOST:PORT (default: $STOKER_ADDRESS, else the system's daemon, else yours)")
      ->take_last();
  app.add_flag("--json", context.output.json, "The result as one JSON document");
  app.add_flag("--quiet", context.output.quiet, "No progress, and no summary but with --json");
  app.footer(kExitCodes);
  app.require_subcommand(1);
}

ExitCode UsageError(const Context& context, const CLI::App& app, const CLI::ParseError& error) {
  const auto commands = app.get_subcommands();
  const std::string command = commands.empty() ? "" : absl::StrCat(" ", commands.front()->get_name());
  std::string message = absl::StrReplaceAll(absl::StripAsciiWhitespace(error.what()), {{"\n", " "}});
  if (const auto unknown = app.remaining(); commands.empty() && !unknown.empty()) {
    message = absl::StrCat("there is no command \"", unknown.front(), "\"");
  }
  context.output.err << "stokerctl" << command << ": " << message << "; see stokerctl" << command << " --help"
                     << std::endl;
  return kUsage;
}

}  // namespace

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& help, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, help);
  command->fallthrough();  // --json and the like may stand after the command
  command->footer("Example:\n  " + example);
  return command;
}

int Run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err, bool out_is_terminal,
        bool err_is_terminal) {
  Context context{{out, err, out_is_terminal, err_is_terminal, false, false}, "", nullptr};
  CLI::App app("Talks to stokerd, which makes batches of training data in shared memory.", "stokerctl");
  AddGlobals(app, context);
  for (const auto add :
       {AddHealth, AddStatus, AddDatasets, AddIngest, AddDrop, AddRead, AddPreview, AddBench, AddBenchClient}) {
    add(app, context);
  }
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app.parse(reversed);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app.exit(wanted, out, err);
  } catch (const CLI::ParseError& error) {
    return UsageError(context, app, error);
  }
  const int code = context.action();
  if (out.flush()) return code;
  err << "stokerctl: the output could not be written: is the disk full, the pipe closed?" << std::endl;
  return code == kDone ? kNotEnough : code;
}

}  // namespace stoker::ctl
