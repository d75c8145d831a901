//! An owner that tests can kill: launches one instance of a tool, as its definitions are there, where it is started, runs one prompt, and
//! prints how that ended. The tool is started below this program's guardian, which is this program once more.
#![expect(clippy::print_stdout, reason = "what it prints is what the tests read")]

use anyhow::{Context, bail};
use readyroom::tool::{ContractOptions, Registry};
use readyroom::{Cluster, ClusterOptions};
use readyroom_testkit::tools;

fn main() -> anyhow::Result<()> {
    readyroom::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tool, permissions, prompt] = args.as_slice() else { bail!("expected TOOL PERMISSIONS PROMPT, got {args:?}") };
    let registry = Registry::around(&std::env::current_dir()?)?;
    let definition = &registry.get(tool).context("no such tool")?.definition;
    let contract = ContractOptions { permissions: permissions.parse()?, ..ContractOptions::default() };
    let options = ClusterOptions { contract, ..ClusterOptions::default() }.count(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::launch(definition.clone(), &tools::program(tool), options).await?;
        let response = cluster.submit(prompt.as_str())?.await;
        println!("{}", response.outcome);
        cluster.shutdown().await;
        Ok(())
    })
}
