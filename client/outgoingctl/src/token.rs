//! `token`: what programs without rights of their own show, such as the WHM service on behalf of its callers.

use crate::Failure;
use crate::arguments::TokenVerb;
use crate::output::complain;
use crate::rows::{NewToken, TokenRow};
use crate::tools::Tools;
use crate::verbs::each;
use crate::{moment, show};
use outgoingd_client::protocol::message::Secret;

pub(crate) fn token(tools: &mut Tools, verb: TokenVerb) -> Result<(), Failure> {
    match verb {
        TokenVerb::Create { name, functions, end } => create(tools, &name, &functions, end.until()),
        TokenVerb::List => list(tools),
        TokenVerb::Revoke { names } => each(tools, "token revoke", &names, |Tools { client, output, .. }, name| {
            output.changed("token revoke", "revoked", None, &client.revoke_token(name)?)
        }),
    }
}

/// Standard output has the secret and nothing else, for a shell to take.
fn create(
    Tools { client, output, .. }: &mut Tools,
    name: &str,
    functions: &[String],
    until: Option<u64>,
) -> Result<(), Failure> {
    let Secret(secret) = client.create_token(name, functions, until)?;
    if output.json {
        let until = until.map(moment::rfc3339);
        return output.json(&NewToken { command: "token create", name, secret: &secret, functions, until });
    }
    output.text(&format!("{secret}\n"))?;
    output.flush()?;
    complain(&format!("{}: made; this is its secret, which is not shown again", show::safe(name)));
    Ok(())
}

fn list(Tools { client, output, .. }: &mut Tools) -> Result<(), Failure> {
    let (tokens, now) = (client.tokens()?, moment::now());
    if output.json {
        return tokens.into_iter().try_for_each(|token| output.row(&TokenRow::new(token, now)));
    }
    if tokens.is_empty() {
        return output.text("no tokens\n");
    }
    let mut table = show::table(&show::TOKENS);
    table.add_rows(tokens.iter().map(|token| show::token(token, now)));
    output.text(&show::text(&table))
}
