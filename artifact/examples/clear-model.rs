//! Makes a model of the clear engine, which encrypts nothing, to try a queue with:
//! `clear-model FOLDER` writes `client.zip`, `server.zip` and `rows.csv` there.

use std::path::PathBuf;

use cipherscore_artifact::clear::{ClearFeature, ClearModel, ClearZips};

const ROWS: &str = "age,income\n30,1.5\n45,2\n61,0\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("usage: clear-model FOLDER")?;
    let feature = |name: &str, weight| ClearFeature { name: name.to_owned(), weight };
    let features = vec![feature("age", 0.25), feature("income", -3.0)];
    let ClearZips { client, server } = ClearModel { features, intercept: 0.5 }.zips()?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("client.zip"), client)?;
    std::fs::write(folder.join("server.zip"), server)?;
    std::fs::write(folder.join("rows.csv"), ROWS)?;
    println!("{}: a model that ENCRYPTS NOTHING, and rows for it", folder.display());
    Ok(())
}
