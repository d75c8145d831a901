//! The README's table of tools says what the definitions say.

use readyroom::Permissions;
use readyroom::tool::Registry;
use readyroom_testkit::tools::workspace;

#[test]
fn the_table_of_tools_is_what_the_definitions_say() {
    let page = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let registry = Registry::builtin().unwrap();
    let rows: Vec<String> = registry
        .entries()
        .map(|entry| {
            let definition = &entry.definition;
            let levels = [Permissions::Read, Permissions::Edit, Permissions::Full].map(|permissions| {
                let level = definition.level(permissions);
                match (level.refused.is_empty(), level.prevents.is_empty()) {
                    (false, _) => format!("refused: {}", level.refused),
                    (true, true) => "nothing".to_owned(),
                    (true, false) => level.prevents.join("; "),
                }
            });
            let driver = serde_json::to_value(definition.driver).unwrap();
            format!("| {} | `{}` | {} |", definition.summary, driver.as_str().unwrap(), levels.join(" | "))
        })
        .collect();
    assert!(rows.iter().all(|row| page.contains(row)), "README.md must hold these rows:\n{}", rows.join("\n"));
}
